"""What a run decides by its validation images, before the test: temperature, threshold, margin, and what is unlike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig

from pneumo import record
from pneumo.building import Parts
from pneumo.checkpoints import read_checkpoint, write_decision
from pneumo.data.datamodule import ChestXrayDataModule
from pneumo.data.index import Radiograph, positions
from pneumo.evaluation.decision import decide
from pneumo.features import is_shortened, level_means
from pneumo.finite import require_finite_logits
from pneumo.models.outliers import Outliers, fit_outliers
from pneumo.passes import FeatureOptions

_MOST = 256  # images of either kind: a pass of more costs more than it tells
_FEWEST = 100  # validation images that tell what is usual; the official split has 16
_ALLOWED = 0.01  # share of usual images that is called unlike
_ALLOWED_VIEWS = 0.15  # the same of augmented views, some of which go to extremes on purpose


def decide_by_validation(cfg: DictConfig, options: FeatureOptions, parts: Parts, best: str) -> None:
    """Decide by the best checkpoint's answers to validation images; checkpoint and classifier keep what is decided."""
    datamodule, classifier, trainer = parts
    trainer.strategy.barrier()  # the first process may still be writing it
    checkpoint = read_checkpoint(Path(best))
    answers, rule = checkpoint["validation"], cfg.decision
    require_finite_logits(answers["logits"], "validation")  # before temperature, threshold and OOD detector are fitted
    chosen = decide(
        answers["logits"].double().numpy(),
        record.labels(datamodule, "val", answers["index"]),
        rule.temperature,
        rule.threshold,
        rule.sensitivity,
        cfg.model.threshold,
        rule.uncertain,
    )
    classifier.decide(*chosen)
    trainer.strategy.barrier()
    if trainer.is_global_zero:
        if not is_shortened(trainer):
            classifier.load_state_dict(checkpoint["state_dict"])
            classifier.outliers = _fit_outliers(options, parts)
        write_decision(Path(best), chosen._asdict(), classifier.outliers and classifier.outliers._asdict())
    trainer.strategy.barrier()


def _fit_outliers(options: FeatureOptions, parts: Parts) -> Outliers:
    """Tell what is usual: films as they are, and as far from that as films of others and augmented views of them go."""
    datamodule, classifier, trainer = parts
    reference, others = _choose(datamodule)
    means, channels = level_means(options, datamodule, classifier, trainer, reference + others, augmented=False)
    seen, plain = np.split(means.astype(np.float64), [len(reference)])
    usual = [(plain, _ALLOWED)]
    if datamodule.augmentation.active:  # the network has learned to answer to such images too
        views, _ = level_means(options, datamodule, classifier, trainer, others, augmented=True)
        usual.append((views.astype(np.float64), _ALLOWED_VIEWS))
    return fit_outliers(seen, usual, channels)


def _choose(datamodule: ChestXrayDataModule) -> tuple[list[int], list[int]]:
    """Give the positions of training images that tell what is usual, and of others that tell how far it goes.

    The others are validation images, which the network has not been fitted to, or, where those are few, more of the
    training images.
    """
    train, val = (_shuffle(datamodule.splits[name]) for name in ("train", "val"))
    half = min(_MOST, len(train) // 2)
    few = len(val) < _FEWEST
    reference, usual = (train[:half], train[half : 2 * half]) if few else (train[:_MOST], val[:_MOST])
    return positions(reference, datamodule.radiographs), positions(usual, datamodule.radiographs)


def _shuffle(images: Sequence[Radiograph]) -> list[Radiograph]:
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return [images[i] for i in order.tolist()]
