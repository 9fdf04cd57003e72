"""Calibration of a run on its validation images: temperature, threshold, margin and OOD detector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from pneumo import record
from pneumo.building import RunComponents
from pneumo.checkpoints import read_checkpoint, write_checkpoint
from pneumo.data.datamodule import ChestXrayDataModule
from pneumo.data.index import Radiograph, positions
from pneumo.evaluation.decision import decide
from pneumo.features import is_shortened, level_means
from pneumo.finite import require_finite_logits
from pneumo.models.outliers import Outliers, fit_outliers

_MOST = 256  # images of either kind: a pass of more costs more than it tells
_FEWEST = 100  # validation images that tell what is usual; the official split has 16
_ALLOWED = 0.01  # share of usual images that is called unlike
_ALLOWED_VIEWS = 0.15  # the same of augmented views, some of which go to extremes on purpose


def calibrate(cfg: DictConfig, components: RunComponents, path: Path) -> dict[str, Any]:
    """Calibrate the best checkpoint on the validation set and store temperature, threshold and OOD detector in it.

    Returns:
        The epoch of the checkpoint, its metrics and its validation predictions.
    """
    datamodule, classifier, trainer = components.datamodule, components.classifier, components.trainer
    trainer.strategy.barrier()  # the first process may still be writing it
    checkpoint = read_checkpoint(path)
    validation, rule = checkpoint["validation"], cfg.decision
    require_finite_logits(validation["logits"], "validation")  # before anything is fitted to them
    chosen = decide(
        validation["logits"].double().numpy(),
        record.labels(datamodule, "val", validation["index"]),
        rule.temperature,
        rule.threshold,
        rule.sensitivity,
        cfg.model.threshold,
        rule.uncertain,
    )._asdict()
    classifier.decide(**chosen)
    checkpoint["hyper_parameters"] |= chosen
    trainer.strategy.barrier()
    if trainer.is_global_zero:
        if not is_shortened(trainer):
            classifier.load_state_dict(checkpoint["state_dict"])
            checkpoint["outliers"] = _fit_outliers(cfg, components)._asdict()
        write_checkpoint(checkpoint, path)
    trainer.strategy.barrier()
    return {name: checkpoint[name] for name in ("epoch", "metrics", "validation")}


def _fit_outliers(cfg: DictConfig, components: RunComponents) -> Outliers:
    """Fit the OOD detector to images as they are; other images and augmented views of them bound what is usual."""
    augmentation = components.datamodule.augmentation
    reference, others = _choose(components.datamodule)
    means, channels = level_means(cfg, components, reference + others, augmented=False)
    seen, plain = np.split(means.astype(np.float64), [len(reference)])
    usual = [(plain, _ALLOWED)]
    if augmentation.active:  # the network has been trained on such images too
        views, _ = level_means(cfg, components, others, augmented=True)
        usual.append((views.astype(np.float64), _ALLOWED_VIEWS))
    return fit_outliers(seen, usual, channels)


def _choose(datamodule: ChestXrayDataModule) -> tuple[list[int], list[int]]:
    """Return indices of training images that the detector is fitted to, and of others for its limit.

    The others are validation images or, where those are few, further training images.
    """
    train, val = (_shuffle(datamodule.splits[name]) for name in ("train", "val"))
    half = min(_MOST, len(train) // 2)
    few = len(val) < _FEWEST
    reference, usual = (train[:half], train[half : 2 * half]) if few else (train[:_MOST], val[:_MOST])
    return positions(reference, datamodule.radiographs), positions(usual, datamodule.radiographs)


def _shuffle(images: Sequence[Radiograph]) -> list[Radiograph]:
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return [images[i] for i in order.tolist()]
