"""Architectures and their published weights, from torchvision, timm and pneumo."""

import difflib
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torchvision
from torch import nn

from pneumo.common.text import short_line
from pneumo.errors import ConfigError
from pneumo.models.state_dicts import Converter, StateDict
from pneumo.models.xraychestnet import XrayChestNet


@dataclass(frozen=True)
class Architecture:
    """A network with random weights, and metadata from its source."""

    name: str  # SOURCE/NAME, such as torchvision/resnext50_32x4d
    network: nn.Module  # classifier of images (N, 3, H, W) with the classes of the source
    mean: Sequence[float]  # mean of each channel, subtracted from images in [0, 1]
    std: Sequence[float]  # standard deviation of each channel, by which they are then divided
    # Returns the state dict of published weights, given DEFAULT or a tag, after downloading it if necessary. Raises
    # KeyError for an unknown tag.
    fetch: Callable[[str], StateDict]
    # Returns instructions for a manual download of these weights, as part of a sentence.
    manual_download: Callable[[str], str]
    # Converts state dicts of other implementations of this architecture; None: the source has no converter.
    convert: Converter | None = None


def create(name: str, image_size: int) -> Architecture:
    """Build an architecture by name, SOURCE/NAME, with random weights and for images of `image_size` pixels.

    Raises:
        ConfigError: The source or name is unknown, or the network does not support the image size.
    """
    source, _, short = name.partition("/")
    shown = short_line(name)
    if source not in _SOURCES or not short:
        raise ConfigError(
            f"model.architecture={shown} is not SOURCE/NAME, where SOURCE is one of {', '.join(_SOURCES)}. Use, for "
            "example, model.architecture=torchvision/resnet50 or model.architecture=timm/convnext_tiny."
        )
    build, names = _SOURCES[source]
    base = short.partition(".")[0]
    if base not in (available := names()):
        close = difflib.get_close_matches(short, available, n=3) or available[:3]
        raise ConfigError(
            f"model.architecture={shown} is unknown: {source} has no classifier with this name. Use, for example, "
            f"{' or '.join(f'{source}/{match}' for match in close)}."
        )
    if base != short and (source != "timm" or not _is_tagged(short)):
        tags = timm.list_pretrained(f"{base}.*")[:3] if source == "timm" else []
        raise ConfigError(
            f"model.architecture={shown} has an unknown tag: {source} has no weights with the tag after the dot. "
            f"Use, for example, {' or '.join(f'{source}/{other}' for other in [base, *tags])}."
        )
    return build(name, short, image_size)


def _is_tagged(short: str) -> bool:
    try:
        return timm.get_pretrained_cfg(short, allow_unregistered=False) is not None
    except RuntimeError:
        return False


def _torchvision(name: str, short: str, image_size: int) -> Architecture:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Inception networks warn about a future initialization
        network = torchvision.models.get_model(short, weights=None)
    if hasattr(network, "transform_input"):
        network.transform_input = True  # published Inception weights expect this additional normalization
    published = torchvision.models.get_model_weights(short)
    preset = published["DEFAULT"].transforms()

    def manual_download(tag: str) -> str:
        url = published[tag].url
        folder = f"{torch.hub.get_dir()}/checkpoints"
        return f"download {url} on another machine and save it as {url.rsplit('/', 1)[-1]} in {folder}"

    def fetch(tag: str) -> StateDict:
        state: StateDict = published[tag].get_state_dict(
            progress=True, check_hash=True, map_location="cpu", weights_only=True
        )
        return state

    return Architecture(name, network, preset.mean, preset.std, fetch, manual_download)


def _timm(name: str, short: str, image_size: int) -> Architecture:
    network = timm.create_model(short, pretrained=False)
    config: Any = network.pretrained_cfg
    base = short.partition(".")[0]

    def tagged(tag: str) -> str:
        full = short if tag == "DEFAULT" else f"{base}.{tag}"
        if not timm.models.is_model_pretrained(full):
            raise KeyError(tag)
        return full

    def manual_download(tag: str) -> str:
        hub = timm.get_pretrained_cfg(tagged(tag))
        page = f"https://huggingface.co/{hub.hf_hub_id}" if hub and hub.hf_hub_id else "the model's page"
        return f"download model.safetensors from {page} on another machine and set model.weights to its path"

    def fetch(tag: str) -> StateDict:
        state: StateDict = timm.create_model(tagged(tag), pretrained=True).state_dict()
        return state

    # timm applies this function to the checkpoints of an architecture family before loading them.
    convert = getattr(sys.modules[timm.model_entrypoint(base).__module__], "checkpoint_filter_fn", None)
    return Architecture(name, network, config["mean"], config["std"], fetch, manual_download, convert)


def _pneumo(name: str, short: str, image_size: int) -> Architecture:
    network = XrayChestNet(image_size, classes=2)

    def unpublished(tag: str) -> Any:  # noqa: ANN401 (always raises)
        raise KeyError(tag)

    return Architecture(name, network, (0.5,) * 3, (0.25,) * 3, unpublished, unpublished)


_Build = Callable[[str, str, int], Architecture]
_SOURCES: dict[str, tuple[_Build, Callable[[], list[str]]]] = {
    "torchvision": (_torchvision, lambda: torchvision.models.list_models(module=torchvision.models)),
    "timm": (_timm, timm.list_models),
    "pneumo": (_pneumo, lambda: ["xraychestnet"]),
}
