"""Architectures and their published weights: torchvision, timm and pneumo itself."""

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

from pneumo.common.text import plain
from pneumo.errors import ConfigError
from pneumo.models.state_dicts import Converter, StateDict
from pneumo.models.xraychestnet import XrayChestNet


@dataclass(frozen=True)
class Architecture:
    """A network with random weights, and what its source knows of it."""

    name: str  # such as torchvision/resnext50_32x4d
    network: nn.Module  # classifies images (N, 3, H, W) into the source's classes
    mean: Sequence[float]  # what to subtract from images in 0..1, per channel
    std: Sequence[float]  # what to divide by after that, per channel
    # Maps the name of published weights, DEFAULT or a tag, to their state dict, downloaded where needed; raises
    # KeyError for an unknown name.
    fetch: Callable[[str], StateDict]
    # Describes where to get those weights and put them without this program, as part of a sentence.
    by_hand: Callable[[str], str]
    # Translates state dicts of other code for this architecture; None where the source has no such function.
    convert: Converter | None = None


def create(name: str, image_size: int) -> Architecture:
    """Build an architecture by its full name, SOURCE/NAME, with random weights, for images of this size.

    Raises:
        ConfigError: There is no such source or name, or the network does not fit the image size.
    """
    source, _, short = name.partition("/")
    shown = plain(name)
    if source not in _SOURCES or not short:
        raise ConfigError(
            f"model.architecture={shown} is not SOURCE/NAME with one of the sources {', '.join(_SOURCES)}: write, for "
            "example, model.architecture=torchvision/resnet50 or model.architecture=timm/convnext_tiny."
        )
    build, names = _SOURCES[source]
    base = short.partition(".")[0]
    if base not in (known := names()):
        close = difflib.get_close_matches(short, known, n=3) or known[:3]
        raise ConfigError(
            f"model.architecture={shown}: {source} has no classifier of that name. Names that it has are, for example, "
            f"{', '.join(f'{source}/{match}' for match in close)}."
        )
    if base != short and (source != "timm" or not _is_tagged(short)):
        tags = timm.list_pretrained(f"{base}.*")[:3] if source == "timm" else []
        raise ConfigError(
            f"model.architecture={shown}: {source} has no weights of that tag, which is what comes after the dot. "
            f"Write, for example, one of {', '.join(f'{source}/{other}' for other in [base, *tags])}."
        )
    return build(name, short, image_size)


def _is_tagged(short: str) -> bool:
    try:
        return timm.get_pretrained_cfg(short, allow_unregistered=False) is not None
    except RuntimeError:
        return False


def _torchvision(name: str, short: str, image_size: int) -> Architecture:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Inception's family announces another initialisation for ever
        network = torchvision.models.get_model(short, weights=None)
    if hasattr(network, "transform_input"):
        network.transform_input = True  # that family's published weights expect its own normalisation on top
    published = torchvision.models.get_model_weights(short)
    preset = published["DEFAULT"].transforms()

    def by_hand(tag: str) -> str:
        url = published[tag].url
        folder = f"{torch.hub.get_dir()}/checkpoints"
        return f"download {url} elsewhere and put it, as {url.rsplit('/', 1)[-1]}, into {folder}"

    def fetch(tag: str) -> StateDict:
        state: StateDict = published[tag].get_state_dict(
            progress=True, check_hash=True, map_location="cpu", weights_only=True
        )
        return state

    return Architecture(name, network, preset.mean, preset.std, fetch, by_hand)


def _timm(name: str, short: str, image_size: int) -> Architecture:
    network = timm.create_model(short, pretrained=False)
    config: Any = network.pretrained_cfg
    base = short.partition(".")[0]

    def tagged(tag: str) -> str:
        full = short if tag == "DEFAULT" else f"{base}.{tag}"
        if not timm.models.is_model_pretrained(full):
            raise KeyError(tag)
        return full

    def by_hand(tag: str) -> str:
        hub = timm.get_pretrained_cfg(tagged(tag))
        page = f"https://huggingface.co/{hub.hf_hub_id}" if hub and hub.hf_hub_id else "the model's page"
        return f"download model.safetensors from {page} elsewhere, put it into any folder and name it as below"

    def fetch(tag: str) -> StateDict:
        state: StateDict = timm.create_model(tagged(tag), pretrained=True).state_dict()
        return state

    # timm's name for what it applies to every checkpoint of an architecture family before loading it.
    convert = getattr(sys.modules[timm.model_entrypoint(base).__module__], "checkpoint_filter_fn", None)
    return Architecture(name, network, config["mean"], config["std"], fetch, by_hand, convert)


def _pneumo(name: str, short: str, image_size: int) -> Architecture:
    network = XrayChestNet(image_size, classes=2)

    def unpublished(tag: str) -> Any:  # noqa: ANN401 (it never returns)
        raise KeyError(tag)

    return Architecture(name, network, (0.5,) * 3, (0.25,) * 3, unpublished, unpublished)


_Build = Callable[[str, str, int], Architecture]
_SOURCES: dict[str, tuple[_Build, Callable[[], list[str]]]] = {
    "torchvision": (_torchvision, lambda: torchvision.models.list_models(module=torchvision.models)),
    "timm": (_timm, timm.list_models),
    "pneumo": (_pneumo, lambda: ["xraychestnet"]),
}
