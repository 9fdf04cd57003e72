"""One pass of a backbone over the images of a data module, with cached outputs."""

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
from pneumo.models.fast_inference import PASS, Change, FeaturePass, default_batch_size, fast_copy
from pneumo.models.ood_detector import LevelMeans
from pneumo.training.components import RunComponents

COMPILE_FROM = 20_000  # images: compiling takes some 20 s, and saves at most 1 to 5 ms an image on two cores


@dataclass(frozen=True)
class FeatureOptions:
    """Whether and how features are cached; the group `features` of conf/train.yaml."""

    cache: bool | str  # True, False, or auto: where the whole backbone is frozen and no limit shortens the epochs
    views: int  # augmented views that are kept of each training image; without augmentation there is but one
    compile: bool | str  # True, False, or auto: from `COMPILE_FROM` images on, where there is a compiler
    batch_size: int | None  # images a pass; None is 16 on a CPU and 128 elsewhere


class View(NamedTuple):
    """What a backbone sees of each image."""

    about: dict[str, object]  # what decides the view, for the cache's key
    change: Change | None  # maps images on the device, and the first one's index in the pass, to the view


PLAIN = View({}, None)


class BackbonePass:
    """One backbone run over the images of one data module."""

    def __init__(self, options: FeatureOptions, components: RunComponents) -> None:
        """Prepare the pass of a run's backbone over the images of its data module."""
        self.options = options
        self.datamodule = components.datamodule
        self.backbone = components.classifier.backbone
        self.architecture = str(components.classifier.hparams["architecture"])
        self.device = components.trainer.strategy.root_device
        self.batch_size = options.batch_size or default_batch_size(self.device)

    def compute(self, positions: Sequence[int], view: View, doing: str) -> Array:
        """Compute the features of radiographs by their positions in the index, (N, D) float32.

        One radiograph may come several times. Progress bars and the log show `doing`.
        """
        if self.options.compile == "auto":
            compiled = len(positions) >= COMPILE_FROM and can_compile(self.device.type)
        elif compiled := bool(self.options.compile):
            require_compiler("features.compile=true", self.device.type, "features.compile=auto")
        data = self.datamodule

        def blocks(start: int) -> Iterator[Array]:
            data.open_images()
            runner = FeaturePass(self.backbone, data.image_size, self.device, self.batch_size, compiled)
            images = data.image_blocks(positions[start:], self.batch_size)
            features = runner.run(images, start, view.change)
            return (require_finite(block, self.architecture) for block in features)

        recipe = Recipe(
            kind="features",
            about=self._about(view.about | {"compiled": compiled}),
            shape=(len(positions), self.backbone.features),
            dtype="float32",
            doing=f"{doing} of {self.architecture}",
        )
        return find_or_build(data.cache_dir, recipe, blocks, data.notes.found)

    def means(self, positions: Sequence[int], view: View, keep: bool) -> tuple[Array, list[int]]:
        """Compute `LevelMeans` of radiographs, (N, P) float32; also return each level's number of channels.

        They are kept in the cache, for other runs of the same backbone, if `keep` is set.
        """
        data = self.datamodule
        levels = LevelMeans(fast_copy(self.backbone, data.image_size).to(self.device), data.image_size)
        doing = f"Looking at what is usual with {self.architecture}"

        def blocks(start: int) -> Iterator[Array]:
            images = torch.from_numpy(load_images(data, [data.radiographs[i] for i in positions[start:]]))[:, None]
            for image in torch.split(images, self.batch_size):
                with torch.inference_mode():
                    seen = image.to(self.device)
                    seen = seen if view.change is None else view.change(seen, start)
                    yield require_finite(levels(seen)[1].cpu().numpy(), self.architecture)
                start += len(image)

        if keep:
            about = view.about | {"levels": list(levels.layouts), "positions": hash_plain(list(positions))}
            shape = (len(positions), sum(levels.channels))
            recipe = Recipe(kind="means", about=self._about(about), shape=shape, dtype="float32", doing=doing)
            return find_or_build(data.cache_dir, recipe, blocks), levels.channels
        found: list[Array] = []
        with track(doing, len(positions)) as advance:
            for block in blocks(0):
                found.append(block)
                advance(sum(map(len, found)))
        return np.concatenate(found), levels.channels

    def _about(self, about: dict[str, object]) -> dict[str, object]:
        """Return all that decides what the backbone computes of an image."""
        return {
            "architecture": self.architecture,
            "weights": _hash_weights(self.backbone),
            "data": self.datamodule.content_hash,
            "images": len(self.datamodule.radiographs),
            "image_size": self.datamodule.image_size,
            "crop_pct": self.datamodule.crop_pct,
            "decoder": DECODER,
            **about,
            "device": self.device.type,
            "gpu": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else None,
            "batch_size": self.batch_size,
            "pass": PASS,
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
    """Return features of a backbone; raise a WeightsError if one is infinite or NaN."""
    if np.isfinite(features).all():
        return features
    raise WeightsError(
        f"The backbone {architecture} returns features that are infinite or NaN: its weights are not finite or too "
        "large. Choose other weights with model.weights or, if this run has trained them, lower optimizer.lr."
    )
