"""Features of a backbone: cached training inputs if it is frozen, otherwise data to warm up the head."""

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
from pneumo.data.augmentation import AUGMENTATION_VERSION, Augmentation
from pneumo.data.batches import merge_single_image
from pneumo.data.index import indices_of
from pneumo.errors import ConfigError
from pneumo.models.backbones import trains_on_one_image
from pneumo.models.fine_tuning import OneCycle, fit_head
from pneumo.training.backbone_pass import UNAUGMENTED, BackbonePass, FeatureOptions, View, require_finite
from pneumo.training.callbacks import PASSIVE_CALLBACKS
from pneumo.training.components import RunComponents

_log = logging.getLogger(__name__)
_PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")  # the precisions of Lightning with float32 weights
# Callbacks of Lightning that act the same if they see only the last of many steps; their subclasses too.
_STEP_INDEPENDENT = (EarlyStopping, ProgressBar, Timer)
FEATURES_PER_STEP = 4096  # per Lightning step, whose overhead exceeds the cost of a step of the head


def uses_features(cfg: DictConfig, components: RunComponents) -> bool:
    """Return whether a run trains on cached features; raise a ConfigError if features.cache=true is impossible."""
    classifier, precision, cache = components.classifier, components.trainer.precision, cfg.features.cache
    obstacle = None
    if not classifier.frozen:
        obstacle = "a trained backbone changes its features in each step. Set model.freeze=true"
    elif classifier.flip_test:
        obstacle = "decision.flip=true also needs features of flipped images. Set decision.flip=false"
    elif precision not in _PRECISIONS:
        obstacle = (
            f"trainer.precision={precision} is not supported. Set trainer.precision to one of {', '.join(_PRECISIONS)}"
        )
    if cache is True and obstacle:
        raise ConfigError(f"features.cache=true is not possible: {obstacle}, or set features.cache=auto.")
    return obstacle is None and (cache is True or (cache == "auto" and not is_shortened(components.trainer)))


def is_shortened(trainer: Trainer) -> bool:
    """Return whether limits keep a run from using all data, so that filling a cache could take longer than the run."""
    limits = (trainer.limit_train_batches, trainer.limit_val_batches, trainer.limit_test_batches)
    return any(limit != 1.0 or isinstance(limit, int) for limit in limits)


def serve_features(cfg: DictConfig, components: RunComponents) -> None:
    """Serve batches of features; compute those that are not cached.

    Raises:
        DataError: An image cannot be decoded.
        CacheError: The disk is full or cannot be written.
    """
    datamodule, options = components.datamodule, FeatureOptions(**cfg.features)
    backbone = BackbonePass(options, components)
    features = backbone.compute_features(range(len(datamodule.radiographs)), UNAUGMENTED, "Computing features")
    views = None
    if datamodule.augmentation.active:
        pool = datamodule.non_test_indices
        random = torch.cat([datamodule.augmentation.draw(len(pool), view) for view in range(options.views)])
        view = _augment(datamodule.augmentation, random, views=options.views)
        views = backbone.compute_features(pool * options.views, view, "Computing features of augmented views")
    serve_arrays(components, features, views)


def serve_arrays(components: RunComponents, features: Array, views: Array | None) -> None:
    """Serve batches of the given features; many steps form one batch if nothing depends on single steps."""
    datamodule = components.datamodule
    steps = 1
    if _can_merge_steps(components):
        steps = max(1, FEATURES_PER_STEP // datamodule.batch_size)
    else:
        _log.info("Running each step separately, since a setting or callback depends on single steps.")
    datamodule.use_features(features, views, steps)


def _can_merge_steps(components: RunComponents) -> bool:
    """Return whether a step is only forward, backward and update, and nothing counts steps."""
    classifier, trainer = components.classifier, components.trainer
    factory = classifier.make_optimizer
    return (
        isinstance(factory, partial)
        and str(factory.func.__module__).startswith("torch.optim.")  # others may require a closure
        and factory.func is not torch.optim.LBFGS  # requires a closure
        and all(map(_ignores_steps, components.callbacks))
        and trainer.world_size == 1
        and trainer.precision != "16-mixed"  # scales the loss
        and trainer.gradient_clip_val is None
        and trainer.accumulate_grad_batches == 1
        and trainer.max_steps == -1
        and not isinstance(classifier.make_scheduler, OneCycle)
        and isinstance(trainer.val_check_interval, float)  # 1.0 is once per epoch, 1 is after each step
        and trainer.val_check_interval == 1.0
        and not is_shortened(trainer)
    )


def _ignores_steps(callback: Callback) -> bool:
    """Return whether a callback depends on epochs only, not on single steps."""
    if isinstance(callback, ModelCheckpoint):
        return not callback._every_n_train_steps and callback._train_time_interval is None
    return isinstance(callback, _STEP_INDEPENDENT) or type(callback) in PASSIVE_CALLBACKS


def compute_channel_means(
    cfg: DictConfig, components: RunComponents, indices: Sequence[int], augmented: bool
) -> tuple[Array, list[int]]:
    """Compute the channel means of a `MultiLevelBackbone` and each level's number of channels.

    They are cached if the run uses cached features. `indices` refer to the data module's radiographs.
    """
    augmentation = components.datamodule.augmentation
    view = _augment(augmentation, augmentation.draw(len(indices), 0)) if augmented else UNAUGMENTED
    cache = uses_features(cfg, components)
    return BackbonePass(FeatureOptions(**cfg.features), components).compute_channel_means(indices, view, cache)


def _augment(augmentation: Augmentation, random: Tensor, **cache_key: int) -> View:
    """Return a view that augments each image with its row of random numbers; `cache_key` extends the view's key."""
    return View(
        {"augmentation": [AUGMENTATION_VERSION, augmentation.settings], **cache_key},
        lambda images, start: augmentation(images, random[start : start + len(images)]),
    )


def warm_up_head(components: RunComponents, balance: bool) -> None:
    """Fit the head to the features of the backbone in training mode; see `fit_head`.

    Cached features cannot be used: batch normalization uses other statistics in evaluation mode. Batches are shuffled,
    as in training, but not augmented. The backbone does not change, nor do its running statistics.

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
    if len(indices) % datamodule.batch_size == 1 and not trains_on_one_image(backbone, classifier.input_format.size):
        blocks = merge_single_image(blocks)
    with torch.inference_mode(), track("Warming up the head", len(indices)) as update:
        for block in blocks:
            output = backbone(block.to(device)).float().cpu().numpy()
            features.append(require_finite(output, str(classifier.hparams["architecture"])))
            update(sum(map(len, features)))
    labels = np.array([images[i].label for i in order])
    fit_head(classifier.head, np.concatenate(features), labels, balance)
    _log.info("Initialized the head with a logistic regression on the features of %d training images", len(images))
