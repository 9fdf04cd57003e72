"""The feature cache: what a frozen backbone makes of each radiograph, computed once for all runs."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import timm
import torch
import torchvision
from lightning import Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, ProgressBar, Timer, WeightAveraging

from pneumo.cache import Array, Recipe, find_or_build, hash_plain
from pneumo.data.augmentation import AUGMENTATION
from pneumo.data.datamodule import ChestXrayDataModule
from pneumo.data.images import DECODER
from pneumo.errors import ConfigError
from pneumo.hardware import can_compile, require_compiler
from pneumo.models.backbone import Backbone
from pneumo.models.classifier import Classifier
from pneumo.models.fine_tuning import OneCycle
from pneumo.models.inference import PASS, PRECISIONS, Change, FeaturePass, default_batch_size, fast_copy
from pneumo.models.levels import LevelMeans

_log = logging.getLogger(__name__)

COMPILE_FROM = 20_000  # images: compiling takes some 20 s, and saves at most 1 to 5 ms an image on two cores
_SAFE = (EarlyStopping, ProgressBar, Timer)  # callbacks that look at epochs, not at steps
AT_ONCE = 4096  # features given to Lightning at once, which takes longer for a step than a head does


@dataclass(frozen=True)
class FeatureOptions:
    """Whether and how features are cached; `features` in conf/train.yaml tells the same.

    Attributes:
        cache: True, False, or auto: where the whole backbone is frozen and no limit shortens the epochs.
        views: Augmented views that are kept of each training image; without augmentation there is but one.
        compile: True, False, or auto: from `COMPILE_FROM` images on, where there is a compiler.
        batch_size: Images a pass; None is 16 on a CPU and 128 elsewhere.
    """

    cache: bool | str
    views: int
    compile: bool | str
    batch_size: int | None


def uses_features(options: FeatureOptions, classifier: Classifier, trainer: Trainer) -> bool:
    """Tell whether a run trains on cached features.

    Raises:
        ConfigError: It was told to, and cannot.
    """
    obstacle = None
    if not classifier.frozen:
        obstacle = "a backbone that is trained gives other features after each step: take model.freeze=true"
    elif classifier.flip_test:
        obstacle = "decision.flip=true asks the mirror image too, whose features are not kept: take decision.flip=false"
    elif trainer.precision not in PRECISIONS:
        obstacle = f"with trainer.precision={trainer.precision} they are not kept: take one of {', '.join(PRECISIONS)}"
    if options.cache is True and obstacle:
        raise ConfigError(f"features.cache=true cannot be: {obstacle}, or features.cache=auto.")
    return obstacle is None and (options.cache is True or (options.cache == "auto" and not is_shortened(trainer)))


def level_means(
    options: FeatureOptions,
    datamodule: ChestXrayDataModule,
    classifier: Classifier,
    trainer: Trainer,
    positions: Sequence[int],
) -> tuple[Array, list[int]]:
    """Give what `LevelMeans` gives for radiographs by their positions in the index, and each level's channels.

    They are cached where features are.
    """
    return _Pass(options, datamodule, classifier, trainer).means(positions, uses_features(options, classifier, trainer))


def is_shortened(trainer: Trainer) -> bool:
    """Tell whether limits keep a run from using all data, so that filling a cache with them could cost more."""
    limits = (trainer.limit_train_batches, trainer.limit_val_batches, trainer.limit_test_batches)
    return any(limit != 1.0 or isinstance(limit, int) for limit in limits)


def serve_features(
    options: FeatureOptions, datamodule: ChestXrayDataModule, classifier: Classifier, trainer: Trainer
) -> None:
    """Have a data module cut its batches from features, after computing those that are not there.

    Raises:
        DataError: An image cannot be decoded.
        CacheError: The disk is full or cannot be written.
    """
    passed = _Pass(options, datamodule, classifier, trainer)
    everything = range(len(datamodule.radiographs))
    plain = passed.compute(everything, {}, "Computing features", None)
    views = None
    if datamodule.augmentation.active:
        pool = datamodule.trainable
        numbers = torch.cat([datamodule.augmentation.draw(len(pool), view) for view in range(options.views)])
        about = {"augmentation": [AUGMENTATION, datamodule.augmentation.settings], "views": options.views}
        augment = datamodule.augmentation
        views = passed.compute(
            pool * options.views,
            about,
            "Computing features of augmented views",
            lambda image, start: augment(image, numbers[start : start + len(image)]),
        )
    serve(datamodule, classifier, trainer, plain, views)


def serve(
    datamodule: ChestXrayDataModule, classifier: Classifier, trainer: Trainer, features: Array, views: Array | None
) -> None:
    """Have batches cut from given features, and a classifier take many steps at a time where it can."""
    datamodule.serve(features, views)
    if _is_plain(classifier, trainer):
        datamodule.steps_per_batch = max(1, AT_ONCE // datamodule.batch_size)
        classifier.step_size = datamodule.batch_size
    else:
        _log.info("Some setting or callback looks at single steps, so Lightning is given them one by one.")


def _is_plain(classifier: Classifier, trainer: Trainer) -> bool:
    """Tell whether a step is no more than forward, backward and update, and nothing counts steps."""
    optimizer = getattr(classifier.make_optimizer, "func", None)
    return (
        str(getattr(optimizer, "__module__", "")).startswith("torch.optim.")  # others may call for the loss themselves
        and optimizer is not torch.optim.LBFGS  # as this one does
        and all(_looks_at_epochs(callback) for callback in trainer.callbacks)  # type: ignore[attr-defined] # set by a connector
        and trainer.world_size == 1
        and trainer.precision != "16-mixed"  # which scales the loss
        and trainer.gradient_clip_val is None
        and trainer.accumulate_grad_batches == 1
        and trainer.max_steps == -1
        and not isinstance(classifier.make_scheduler, OneCycle)
        and isinstance(trainer.val_check_interval, float)  # 1.0 is once an epoch, 1 would be after each step
        and trainer.val_check_interval == 1.0
        and not is_shortened(trainer)
    )


def _looks_at_epochs(callback: Callback) -> bool:
    """Tell whether a callback counts epochs, or nothing, rather than steps."""
    if isinstance(callback, ModelCheckpoint):
        return not callback._every_n_train_steps and callback._train_time_interval is None
    if isinstance(callback, WeightAveraging):
        return False
    return type(callback).__module__.startswith("pneumo.") or isinstance(callback, _SAFE)


class _Pass:
    """One backbone run over the images of one data module."""

    def __init__(
        self, options: FeatureOptions, datamodule: ChestXrayDataModule, classifier: Classifier, trainer: Trainer
    ) -> None:
        self.options = options
        self.datamodule = datamodule
        self.backbone = classifier.backbone
        self.architecture = str(classifier.hparams["architecture"])
        self.device = trainer.strategy.root_device
        self.precision = str(trainer.precision)
        self.batch_size = options.batch_size or default_batch_size(self.device)

    def compute(
        self,
        positions: Sequence[int],
        about: dict[str, object],
        doing: str,
        change: Change | None,
    ) -> Array:
        """Give the features of radiographs by their positions in the index, (N, D) float32.

        Args:
            positions: Of the radiographs; one may come several times.
            about: What decides the features beside the backbone, the data, and how it is computed.
            doing: What this is called.
            change: Maps images on the device, and the place of the first among `positions`, to what shall be seen.
        """
        if self.options.compile == "auto":
            compiled = len(positions) >= COMPILE_FROM and can_compile(self.device.type)
        elif compiled := bool(self.options.compile):
            require_compiler("features.compile=true", self.device.type, "features.compile=auto")
        recipe = Recipe(
            kind="features",
            about=self._about(about | {"compiled": compiled}),
            shape=(len(positions), self.backbone.features),
            dtype="float32",
            doing=f"{doing} of {self.architecture}",
        )
        return find_or_build(
            self.datamodule.cache_dir, recipe, lambda start: self._blocks(positions, start, compiled, change)
        )

    def means(self, positions: Sequence[int], keep: bool) -> tuple[Array, list[int]]:
        """Give what `LevelMeans` gives for radiographs, (N, P) float32, and each level's number of channels.

        Args:
            positions: Of the radiographs in the index.
            keep: In the cache, for other runs of the same backbone.
        """
        levels = LevelMeans(
            fast_copy(self.backbone, self.datamodule.image_size).to(self.device), self.datamodule.image_size
        )
        recipe = Recipe(
            kind="features",
            about=self._about({"levels": levels.layers, "positions": hash_plain(list(positions))}),
            shape=(len(positions), sum(levels.channels)),
            dtype="float32",
            doing=f"Computing means of channels of {self.architecture}",
        )

        def blocks(start: int) -> Iterator[Array]:
            self.datamodule.open_images()
            for image in self.datamodule.image_blocks(positions[start:], self.batch_size):
                with torch.inference_mode():
                    yield levels(image.to(self.device))[1].cpu().numpy()

        if keep:
            return find_or_build(self.datamodule.cache_dir, recipe, blocks), levels.channels
        return np.concatenate(list(blocks(0))), levels.channels

    def _about(self, about: dict[str, object]) -> dict[str, object]:
        """Tell all that decides what the backbone gives for an image."""
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
            "precision": self.precision,
            "batch_size": self.batch_size,
            "pass": PASS,
            "matmul_precision": torch.get_float32_matmul_precision(),  # follows trainer.deterministic
            "versions": [str(package.__version__) for package in (torch, torchvision, timm)],
        }

    def _blocks(self, positions: Sequence[int], start: int, compiled: bool, change: Change | None) -> Iterator[Array]:
        data = self.datamodule
        data.open_images()
        runner = FeaturePass(self.backbone, data.image_size, self.device, self.precision, self.batch_size, compiled)
        return runner.run(data.image_blocks(positions[start:], self.batch_size), start, change)


def _hash_weights(backbone: Backbone) -> str:
    """Hash the names, shapes and values of a backbone's state, 32 hex digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(backbone.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().contiguous().view(-1).numpy()).data)
    return digest.hexdigest()[:32]
