"""Inference pass of a backbone over the images of a data module, with cached features."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import timm
import torch
import torchvision

from pneumo.common.array_cache import Array, Recipe, find_or_build
from pneumo.common.hardware import can_compile, require_compiler
from pneumo.common.plain_data import hash_plain
from pneumo.common.terminal import track
from pneumo.data.grey import DECODER
from pneumo.data.previews import load_images
from pneumo.errors import WeightsError
from pneumo.models.backbones import Backbone
from pneumo.models.fast_inference import (
    FEATURES_VERSION,
    FeatureExtractor,
    ImageTransform,
    default_batch_size,
    fast_copy,
)
from pneumo.models.ood_detector import MultiLevelBackbone
from pneumo.training.components import RunComponents

COMPILE_MIN_IMAGES = 20_000  # compiling takes about 20 s and saves at most 1 to 5 ms per image on two cores


@dataclass(frozen=True)
class FeatureOptions:
    """Options of the feature cache: the group `features` of conf/train.yaml."""

    cache: bool | str  # True, False, or auto: if the whole backbone is frozen and no limit_*_batches is set
    views: int  # cached augmented views per training image; without augmentation there is only one view
    compile: bool | str  # True, False, or auto: from `COMPILE_MIN_IMAGES` images, if there is a compiler
    batch_size: int | None  # None: 16 on a CPU, 128 on other devices


class View(NamedTuple):
    """Transform of the backbone's input images, with its cache key."""

    cache_key: dict[str, object]  # everything that determines the view
    transform: ImageTransform | None  # applied to images on the device; None: no transform


UNAUGMENTED = View({}, None)


class BackbonePass:
    """Inference pass of one backbone over the images of one data module."""

    def __init__(self, options: FeatureOptions, components: RunComponents) -> None:
        """Initialize with the feature options and the components of a run."""
        self.options = options
        self.datamodule = components.datamodule
        self.backbone = components.classifier.backbone
        self.architecture = str(components.classifier.hparams["architecture"])
        self.device = components.trainer.strategy.root_device
        self.batch_size = options.batch_size or default_batch_size(self.device)

    def compute_features(self, indices: Sequence[int], view: View, title: str) -> Array:
        """Compute the features of radiographs, (N, D) float32.

        Args:
            indices: Indices into the data module's radiographs; repeats are allowed.
            view: Transform of the images.
            title: Title of the progress bar and of its log lines.
        """
        if self.options.compile == "auto":
            compiled = len(indices) >= COMPILE_MIN_IMAGES and can_compile(self.device.type)
        elif compiled := bool(self.options.compile):
            require_compiler("features.compile=true", self.device.type, "features.compile=auto")
        data = self.datamodule

        def blocks(start: int) -> Iterator[Array]:
            data.open_images()
            extractor = FeatureExtractor(self.backbone, data.input_format.size, self.device, self.batch_size, compiled)
            images = data.image_blocks(indices[start:], self.batch_size)
            features = extractor.run(images, start, view.transform)
            return (require_finite(block, self.architecture) for block in features)

        recipe = Recipe(
            kind="features",
            provenance=self._cache_key(view.cache_key | {"compiled": compiled}),
            shape=(len(indices), self.backbone.features),
            dtype="float32",
            title=f"{title} of {self.architecture}",
        )
        return find_or_build(data.cache_dir, recipe, blocks, data.notes.found)

    def compute_channel_means(self, indices: Sequence[int], view: View, cache: bool) -> tuple[Array, list[int]]:
        """Compute the channel means of a `MultiLevelBackbone`, (N, P) float32, and each level's number of channels.

        `cache` stores the means for other runs with the same backbone.
        """
        data, size = self.datamodule, self.datamodule.input_format.size
        levels = MultiLevelBackbone(fast_copy(self.backbone, size).to(self.device), size)
        title = f"Fitting the OOD detector for {self.architecture}"

        def blocks(start: int) -> Iterator[Array]:
            images = torch.from_numpy(load_images(data, [data.radiographs[i] for i in indices[start:]]))[:, None]
            for batch in torch.split(images, self.batch_size):
                with torch.inference_mode():
                    inputs = batch.to(self.device)
                    inputs = inputs if view.transform is None else view.transform(inputs, start)
                    yield require_finite(levels(inputs)[1].cpu().numpy(), self.architecture)
                start += len(batch)

        if cache:
            key = self._cache_key(
                view.cache_key | {"levels": list(levels.layouts), "positions": hash_plain(list(indices))}
            )
            shape = (len(indices), sum(levels.channels))
            recipe = Recipe(kind="means", provenance=key, shape=shape, dtype="float32", title=title)
            return find_or_build(data.cache_dir, recipe, blocks), levels.channels
        means: list[Array] = []
        with track(title, len(indices)) as update:
            for block in blocks(0):
                means.append(block)
                update(sum(map(len, means)))
        return np.concatenate(means), levels.channels

    def _cache_key(self, extra: dict[str, object]) -> dict[str, object]:
        """Return everything that determines the backbone's output for an image."""
        return {
            "architecture": self.architecture,
            **({} if self.backbone.crop is None else {"lung_crop": self.backbone.crop.size}),
            "weights": _hash_weights(self.backbone),
            "data": self.datamodule.content_hash,
            "images": len(self.datamodule.radiographs),
            **self.datamodule.input_format.provenance(),
            "decoder": DECODER,
            **extra,
            "device": self.device.type,
            "gpu": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else None,
            "batch_size": self.batch_size,
            "pass": FEATURES_VERSION,
            "matmul_precision": torch.get_float32_matmul_precision(),  # follows trainer.deterministic
            "versions": [str(package.__version__) for package in (torch, torchvision, timm)],
        }


def _hash_weights(backbone: Backbone) -> str:
    """Hash the names, shapes and values of a backbone's state, 32 hex digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(backbone.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().contiguous().view(-1).numpy()).data)
    return digest.hexdigest()[:32]


def require_finite(features: Array, architecture: str) -> Array:
    """Return a backbone's features; raise a WeightsError if one is infinite or NaN."""
    if np.isfinite(features).all():
        return features
    raise WeightsError(
        f"The backbone {architecture} outputs infinite or NaN features: its weights are not finite or too large. "
        "Set model.weights to other weights or, if this run has trained the backbone, lower optimizer.lr."
    )
