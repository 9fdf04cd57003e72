"""Features of a backbone: of a frozen one cached and served to training, of another one fitted by the head first."""

import copy
import logging
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, ProgressBar, Timer
from omegaconf import DictConfig
from torch import Tensor

from pneumo.common.array_cache import Array
from pneumo.common.terminal import track
from pneumo.data.augmentation import AUGMENTATION, Augmentation
from pneumo.data.batches import join_single
from pneumo.data.index import indices_of
from pneumo.errors import ConfigError
from pneumo.models.backbones import trains_on_one_image
from pneumo.models.fine_tuning import OneCycle, fit_head
from pneumo.training.backbone_pass import PLAIN, BackbonePass, FeatureOptions, View, require_finite
from pneumo.training.callbacks import BYSTANDERS
from pneumo.training.components import RunComponents

_log = logging.getLogger(__name__)
_PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")  # Lightning's names; with others the weights are not single
# Callbacks of Lightning, with what derives from them, that do the same where they see only the last of many steps.
_SAFE = (EarlyStopping, ProgressBar, Timer)
AT_ONCE = 4096  # features given to Lightning at once, which takes longer for a step than a head does


def uses_features(cfg: DictConfig, components: RunComponents) -> bool:
    """Return whether a run trains on cached features; raise a ConfigError if it cannot, and features.cache=true."""
    classifier, precision, cache = components.classifier, components.trainer.precision, cfg.features.cache
    obstacle = None
    if not classifier.frozen:
        obstacle = "a backbone that is trained gives other features after each step: take model.freeze=true"
    elif classifier.flip_test:
        obstacle = "decision.flip=true asks the mirror image too, whose features are not kept: take decision.flip=false"
    elif precision not in _PRECISIONS:
        obstacle = f"with trainer.precision={precision} they are not kept: take one of {', '.join(_PRECISIONS)}"
    if cache is True and obstacle:
        raise ConfigError(f"features.cache=true cannot be: {obstacle}, or features.cache=auto.")
    return obstacle is None and (cache is True or (cache == "auto" and not is_shortened(components.trainer)))


def is_shortened(trainer: Trainer) -> bool:
    """Return whether limits keep a run from using all data, so that filling a cache with them could cost more."""
    limits = (trainer.limit_train_batches, trainer.limit_val_batches, trainer.limit_test_batches)
    return any(limit != 1.0 or isinstance(limit, int) for limit in limits)


def serve_features(cfg: DictConfig, components: RunComponents) -> None:
    """Serve batches of features, after computing those that are not cached.

    Raises:
        DataError: An image cannot be decoded.
        CacheError: The disk is full or cannot be written.
    """
    datamodule, options = components.datamodule, FeatureOptions(**cfg.features)
    backbone = BackbonePass(options, components)
    plain = backbone.compute(range(len(datamodule.radiographs)), PLAIN, "Computing features")
    views = None
    if datamodule.augmentation.active:
        pool = datamodule.trainable
        numbers = torch.cat([datamodule.augmentation.draw(len(pool), view) for view in range(options.views)])
        view = _augment(datamodule.augmentation, numbers, views=options.views)
        views = backbone.compute(pool * options.views, view, "Computing features of augmented views")
    serve_arrays(components, plain, views)


def serve_arrays(components: RunComponents, features: Array, views: Array | None) -> None:
    """Serve batches of given features, for many steps at a time where nothing depends on single steps."""
    datamodule = components.datamodule
    steps = 1
    if _is_plain(components):
        steps = max(1, AT_ONCE // datamodule.batch_size)
    else:
        _log.info("Some setting or callback looks at single steps, so Lightning is given them one by one.")
    datamodule.serve(features, views, steps)


def _is_plain(components: RunComponents) -> bool:
    """Return whether a step is no more than forward, backward and update, and nothing counts steps."""
    classifier, trainer = components.classifier, components.trainer
    make = classifier.make_optimizer
    return (
        isinstance(make, partial)
        and str(make.func.__module__).startswith("torch.optim.")  # others may call for the loss themselves
        and make.func is not torch.optim.LBFGS  # as this one does
        and all(map(_ignores_steps, components.callbacks))
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


def _ignores_steps(callback: Callback) -> bool:
    """Return whether a callback depends on epochs only, not on single steps."""
    if isinstance(callback, ModelCheckpoint):
        return not callback._every_n_train_steps and callback._train_time_interval is None
    return isinstance(callback, _SAFE) or type(callback) in BYSTANDERS


def level_means(
    cfg: DictConfig, components: RunComponents, positions: Sequence[int], augmented: bool
) -> tuple[Array, list[int]]:
    """Compute `LevelMeans` of radiographs, cached where features are; also return each level's number of channels.

    `positions` are those of the radiographs in the index.
    """
    augmentation = components.datamodule.augmentation
    view = _augment(augmentation, augmentation.draw(len(positions), 0)) if augmented else PLAIN
    keep = uses_features(cfg, components)
    return BackbonePass(FeatureOptions(**cfg.features), components).means(positions, view, keep)


def _augment(augmentation: Augmentation, numbers: Tensor, **about: int) -> View:
    """Return augmented views of images, each by its row of numbers; `about` is added to the key of the cache."""
    return View(
        {"augmentation": [AUGMENTATION, augmentation.settings], **about},
        lambda image, start: augmentation(image, numbers[start : start + len(image)]),
    )


def warm_up_head(components: RunComponents, balance: bool) -> None:
    """Fit the head to the features that the backbone computes in training mode; see `fit_head`.

    The feature cache is of no use here: batch normalization uses other statistics outside of training. Images come in
    shuffled batches, as in training, but not augmented. The backbone stays as it is, stored statistics included.

    Raises:
        DataError: An image cannot be decoded.
    """
    datamodule, classifier = components.datamodule, components.classifier
    device = components.trainer.strategy.root_device
    images = datamodule.splits["train"]
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(datamodule.seed)).tolist()
    indices = indices_of([images[i] for i in order], datamodule.radiographs)
    backbone = copy.deepcopy(classifier.train().backbone).to(device)
    features = []
    blocks = datamodule.image_blocks(indices, datamodule.batch_size)
    if len(indices) % datamodule.batch_size == 1 and not trains_on_one_image(backbone, classifier.image_size):
        blocks = join_single(blocks)
    with torch.inference_mode(), track("Warming up the head", len(indices)) as advance:
        for block in blocks:
            found = backbone(block.to(device)).float().cpu().numpy()
            features.append(require_finite(found, str(classifier.hparams["architecture"])))
            advance(sum(map(len, features)))
    label = np.array([images[i].label for i in order])
    fit_head(classifier.head, np.concatenate(features), label, balance)
    _log.info("the head begins as a logistic regression on the features of %d training images", len(images))
