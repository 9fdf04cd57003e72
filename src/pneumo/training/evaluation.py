"""Evaluation of the best checkpoint: calibration on the validation set, then metrics and files of the test."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from pneumo.data.datamodule import ChestXrayDataModule
from pneumo.data.index import Radiograph, indices_of
from pneumo.errors import NonFiniteLossError
from pneumo.metrics.definitions import measure
from pneumo.metrics.operating_point import choose_operating_point
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.summary import summarise
from pneumo.models.checkpoint_reader import read_checkpoint
from pneumo.models.classifier import Batch
from pneumo.models.ood_detector import OodDetector, fit_ood_detector
from pneumo.runs.prediction_files import write_predictions
from pneumo.runs.results import Results
from pneumo.training.callbacks import require_finite_logits
from pneumo.training.checkpoints import write_checkpoint
from pneumo.training.components import RunComponents
from pneumo.training.feature_cache import is_shortened, level_means

_MOST_IMAGES = 256  # for the OOD detector's fit, and for its limit: more cost time and hardly move it
_FEWEST_VALIDATION = 100  # images from which the limit is taken; the official split has 16
_FALSE_ALARMS = 0.01  # fraction of in-distribution images above the limit
_FALSE_ALARMS_AUGMENTED = 0.15  # the same of augmented views, some of which are extreme on purpose


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
    operating_point = choose_operating_point(
        validation["logits"].double().numpy(),
        np.array([datamodule.splits["val"][i].label for i in validation["index"].tolist()]),
        rule.temperature,
        rule.threshold,
        rule.sensitivity,
        cfg.model.threshold,
        rule.uncertain,
    )._asdict()
    classifier.set_operating_point(**operating_point)
    checkpoint["hyper_parameters"] |= operating_point
    trainer.strategy.barrier()
    if trainer.is_global_zero:
        if not is_shortened(trainer):
            classifier.load_state_dict(checkpoint["state_dict"])
            checkpoint["outliers"] = _fit_ood_detector(cfg, components)._asdict()
        write_checkpoint(checkpoint, path)
    trainer.strategy.barrier()
    return {name: checkpoint[name] for name in ("epoch", "metrics", "validation")}


def logged_metrics(checkpoint: Mapping[str, Any]) -> Results:
    """Return the metrics that training and validation logged in the tested checkpoint's epoch."""
    logged = {name: value for name, value in checkpoint["metrics"].items() if name.startswith(("train/", "val/"))}
    return {
        **{name.replace("/", "_"): value + 0.0 for name, value in logged.items()},  # + 0.0: no negative zero is written
        "best_epoch": checkpoint["epoch"] + 1,
    }


def record_predictions(folder: Path, validation: Batch, components: RunComponents) -> Results:
    """Write predictions.csv of the test set and validation.csv of the tested checkpoint's epoch.

    Args:
        folder: The run's.
        validation: Logits and indices of the validation images, from the checkpoint.
        components: The run's, after the test.

    Returns:
        Their metrics, for results.json. The status is `partial` if test images were left out, as by
        trainer.limit_test_batches.

    Raises:
        NonFiniteLossError: A logit is infinite or NaN; then neither file is written.
    """
    tested = _build_predictions("test", components.classifier.outputs["test"], components)
    held_out = _build_predictions("val", validation, components)
    write_predictions(folder / "predictions.csv", tested)
    write_predictions(folder / "validation.csv", held_out)
    return {
        "status": "done" if len(tested.label) == len(components.datamodule.splits["test"]) else "partial",
        **summarise(tested),
        **{f"val_{name}": value for name, value in measure(held_out).items()},
    }


def _fit_ood_detector(cfg: DictConfig, components: RunComponents) -> OodDetector:
    """Fit the OOD detector to unaugmented images; its limit follows from other images and augmented views of them."""
    augmentation = components.datamodule.augmentation
    reference, others = _choose_ood_images(components.datamodule)
    means, channels = level_means(cfg, components, reference + others, augmented=False)
    fitted, plain = np.split(means.astype(np.float64), [len(reference)])
    in_distribution = [(plain, _FALSE_ALARMS)]
    if augmentation.active:  # the network has been trained on such images too
        views, _ = level_means(cfg, components, others, augmented=True)
        in_distribution.append((views.astype(np.float64), _FALSE_ALARMS_AUGMENTED))
    return fit_ood_detector(fitted, in_distribution, channels)


def _choose_ood_images(datamodule: ChestXrayDataModule) -> tuple[list[int], list[int]]:
    """Return indices of training images that the detector is fitted to, and of others for its limit.

    The others are validation images or, where those are few, further training images.
    """
    train, val = (_shuffle(datamodule.splits[name]) for name in ("train", "val"))
    half = min(_MOST_IMAGES, len(train) // 2)
    few = len(val) < _FEWEST_VALIDATION
    reference, others = (train[:half], train[half : 2 * half]) if few else (train[:_MOST_IMAGES], val[:_MOST_IMAGES])
    return indices_of(reference, datamodule.radiographs), indices_of(others, datamodule.radiographs)


def _shuffle(images: Sequence[Radiograph]) -> list[Radiograph]:
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return [images[i] for i in order.tolist()]


def _build_predictions(split: str, outputs: Batch, components: RunComponents) -> Predictions:
    classifier = components.classifier
    images = [components.datamodule.splits[split][i] for i in outputs["index"].tolist()]
    label = torch.tensor([image.label for image in images])
    predictions = classifier.predictions(outputs["logits"], label, classifier.hparams["threshold"])
    assert predictions.odds is not None
    if broken := np.flatnonzero(~np.isfinite(predictions.odds).all(axis=1)).tolist():
        raise NonFiniteLossError(
            f"The network's output is not finite for {len(broken)} of {len(images)} {split} images, the first of which "
            f"is {images[broken[0]].path}, so no results are written. If that image is intact, the weights have "
            "diverged: lower optimizer.lr or set trainer.precision=32-true, and train again."
        )
    paths, patients, subtypes = zip(*((image.path, image.patient, image.subtype) for image in images), strict=True)
    return replace(predictions, paths=paths, patients=patients, subtypes=subtypes)
