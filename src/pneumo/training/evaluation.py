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
from pneumo.metrics.clusters import number_clusters
from pneumo.metrics.definitions import measure
from pneumo.metrics.operating_point import choose_operating_point
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.summary import summarise
from pneumo.models.checkpoint_reader import read_checkpoint
from pneumo.models.classifier import Batch
from pneumo.models.ood_detector import OodDetector, fit_ood_detector
from pneumo.runs.prediction_files import write_predictions
from pneumo.runs.results import Results
from pneumo.runs.split_files import free_columns
from pneumo.training.callbacks import require_finite_logits
from pneumo.training.checkpoints import write_checkpoint
from pneumo.training.components import RunComponents
from pneumo.training.feature_cache import compute_channel_means, is_shortened

_MAX_OOD_IMAGES = 256  # for the OOD detector's fit and for its limit; more take longer and hardly change either
_MIN_VALIDATION_IMAGES = 100  # to set the limit on the validation set; the official split has 16
_FALSE_ALARM_RATE = 0.01  # fraction of in-distribution images above the limit
_AUGMENTED_FALSE_ALARM_RATE = 0.15  # the same for augmented views, some of which are extreme on purpose


def calibrate(cfg: DictConfig, components: RunComponents, path: Path) -> dict[str, Any]:
    """Calibrate the best checkpoint on the validation set and store operating point and OOD detector in it.

    Returns:
        The epoch of the checkpoint, its metrics and its validation predictions.
    """
    datamodule, classifier, trainer = components.datamodule, components.classifier, components.trainer
    trainer.strategy.barrier()  # rank 0 may still be writing it
    checkpoint = read_checkpoint(path)
    validation, decision = checkpoint["validation"], cfg.decision
    require_finite_logits(validation["logits"], "validation")  # before anything is fitted to them
    operating_point = choose_operating_point(
        validation["logits"].double().numpy(),
        np.array([datamodule.splits["val"][i].label for i in validation["index"].tolist()]),
        decision.temperature,
        decision.threshold,
        decision.sensitivity,
        cfg.model.threshold,
        decision.uncertain,
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
    """Return the training and validation metrics of the tested checkpoint's epoch."""
    logged = {name: value for name, value in checkpoint["metrics"].items() if name.startswith(("train/", "val/"))}
    return {
        **{name.replace("/", "_"): value + 0.0 for name, value in logged.items()},  # + 0.0 turns -0.0 into 0.0
        "best_epoch": checkpoint["epoch"] + 1,
    }


def record_predictions(folder: Path, validation: Batch, components: RunComponents) -> Results:
    """Write predictions.csv of the test set and validation.csv of the validation set.

    Args:
        folder: Run folder.
        validation: Logits and indices of the validation images, from the tested checkpoint.
        components: Components of the run, after the test.

    Returns:
        Metrics for results.json. The status is `partial` if test images were left out, for example by
        trainer.limit_test_batches.

    Raises:
        NonFiniteLossError: A logit is infinite or NaN; neither file is written.
    """
    tested = _build_predictions("test", components.classifier.outputs["test"], components)
    held_out = _build_predictions("val", validation, components)
    for name, split, predictions in (("predictions", "test", tested), ("validation", "val", held_out)):
        write_predictions(folder / f"{name}.csv", predictions, _table_columns(split, predictions, components))
    return {
        "status": "done" if len(tested.label) == len(components.datamodule.splits["test"]) else "partial",
        **summarise(tested),
        **{f"val_{name}": value for name, value in measure(held_out).items()},
    }


def store_internal_test(path: Path, components: RunComponents) -> None:
    """Store the test of a binary classifier in its checkpoint, as a reference for evaluations on other images.

    The key `internal_test` contains each image's difference of logits before calibration (margin), its label and the
    number of its patient, (N,) each, without names. A partial test is not stored.
    """
    outputs, test = components.classifier.outputs["test"], components.datamodule.splits["test"]
    if outputs["logits"].shape[1] != 2 or len(outputs["index"]) != len(test):
        return
    images = [test[index] for index in outputs["index"].tolist()]
    checkpoint = read_checkpoint(path)
    checkpoint["internal_test"] = {
        "margin": outputs["logits"][:, 1].float() - outputs["logits"][:, 0].float(),
        "label": torch.tensor([image.label for image in images]),
        "patient": torch.from_numpy(number_clusters([image.patient for image in images])),
    }
    write_checkpoint(checkpoint, path)


def _table_columns(split: str, predictions: Predictions, components: RunComponents) -> dict[str, tuple[str, ...]]:
    """Return the site and the free columns of a table for the images of predictions; empty without a table."""
    datamodule = components.datamodule
    if datamodule.extra_columns is None:
        return {}
    by_path = {image.path: image for image in datamodule.splits[split]}
    rows = [(by_path[path].site, *by_path[path].extra) for path in predictions.paths]
    names = ("site", *free_columns(datamodule.extra_columns, datamodule.classes))
    return dict(zip(names, zip(*rows, strict=True), strict=True))


def _fit_ood_detector(cfg: DictConfig, components: RunComponents) -> OodDetector:
    """Fit the OOD detector to unaugmented images; set its limit on other images and augmented views of them."""
    augmentation = components.datamodule.augmentation
    reference, others = _choose_ood_images(components.datamodule)
    means, channels = compute_channel_means(cfg, components, reference + others, augmented=False)
    reference_means, limit_means = np.split(means.astype(np.float64), [len(reference)])
    in_distribution = [(limit_means, _FALSE_ALARM_RATE)]
    if augmentation.active:  # the network was trained on augmented images too
        views, _ = compute_channel_means(cfg, components, others, augmented=True)
        in_distribution.append((views.astype(np.float64), _AUGMENTED_FALSE_ALARM_RATE))
    return fit_ood_detector(reference_means, in_distribution, channels)


def _choose_ood_images(datamodule: ChestXrayDataModule) -> tuple[list[int], list[int]]:
    """Return indices of training images to fit the detector to, and of other images to set its limit.

    The other images are validation images or, if those are too few, further training images.
    """
    train, val = (_shuffle(datamodule.splits[name]) for name in ("train", "val"))
    half = min(_MAX_OOD_IMAGES, len(train) // 2)
    reference, others = train[:_MAX_OOD_IMAGES], val[:_MAX_OOD_IMAGES]
    if len(val) < _MIN_VALIDATION_IMAGES:
        reference, others = train[:half], train[half : 2 * half]
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
    if non_finite := np.flatnonzero(~np.isfinite(predictions.odds).all(axis=1)).tolist():
        raise NonFiniteLossError(
            f"The network's output is not finite for {len(non_finite)} of {len(images)} {split} images (first: "
            f"{images[non_finite[0]].path}), so no results are written. If that image is intact, the weights have "
            "diverged: lower optimizer.lr or set trainer.precision=32-true, and train again."
        )
    paths, patients, subtypes = zip(*((image.path, image.patient, image.subtype) for image in images), strict=True)
    return replace(predictions, paths=paths, patients=patients, subtypes=subtypes)
