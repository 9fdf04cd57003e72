"""The feature cache: what a frozen backbone makes of each radiograph, computed once for all runs."""

import logging
from collections.abc import Sequence

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, ProgressBar, Timer, WeightAveraging
from torch import Tensor

from pneumo.cache import Array
from pneumo.data.augmentation import AUGMENTATION
from pneumo.data.datamodule import ChestXrayDataModule
from pneumo.errors import ConfigError
from pneumo.models.classifier import Classifier
from pneumo.models.fine_tuning import OneCycle
from pneumo.models.inference import Change
from pneumo.passes import BackbonePass, FeatureOptions

_log = logging.getLogger(__name__)

_PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")  # Lightning's names; with others the weights are not single
_SAFE = (EarlyStopping, ProgressBar, Timer)  # callbacks that look at epochs, not at steps
AT_ONCE = 4096  # features given to Lightning at once, which takes longer for a step than a head does


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
    elif trainer.precision not in _PRECISIONS:
        obstacle = f"with trainer.precision={trainer.precision} they are not kept: take one of {', '.join(_PRECISIONS)}"
    if options.cache is True and obstacle:
        raise ConfigError(f"features.cache=true cannot be: {obstacle}, or features.cache=auto.")
    return obstacle is None and (options.cache is True or (options.cache == "auto" and not is_shortened(trainer)))


def level_means(
    options: FeatureOptions,
    datamodule: ChestXrayDataModule,
    classifier: Classifier,
    trainer: Trainer,
    positions: Sequence[int],
    augmented: bool,
) -> tuple[Array, list[int]]:
    """Give what `LevelMeans` gives for radiographs by their positions in the index, and each level's channels.

    It is cached where features are.

    Args:
        options: Whether there is a cache.
        datamodule: Of the radiographs.
        classifier: Whose backbone sees them.
        trainer: Whose device does.
        positions: Of the radiographs in the index.
        augmented: See an augmented view of each.
    """
    about, change = _augment(datamodule, datamodule.augmentation.draw(len(positions), 0)) if augmented else ({}, None)
    keep = uses_features(options, classifier, trainer)
    return BackbonePass(options, datamodule, classifier, trainer).means(positions, about, keep, change)


def _augment(datamodule: ChestXrayDataModule, numbers: Tensor) -> tuple[dict[str, object], Change]:
    """Give what decides augmented views, and what makes them, each by its row of numbers."""
    augment = datamodule.augmentation
    about: dict[str, object] = {"augmentation": [AUGMENTATION, augment.settings]}
    return about, lambda image, start: augment(image, numbers[start : start + len(image)])


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
    passed = BackbonePass(options, datamodule, classifier, trainer)
    everything = range(len(datamodule.radiographs))
    plain = passed.compute(everything, {}, "Computing features", None)
    views = None
    if datamodule.augmentation.active:
        pool = datamodule.trainable
        numbers = torch.cat([datamodule.augmentation.draw(len(pool), view) for view in range(options.views)])
        about, change = _augment(datamodule, numbers)
        about["views"] = options.views
        views = passed.compute(pool * options.views, about, "Computing features of augmented views", change)
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
