"""After fitting: calibration on the validation set, and the record of the test."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Timer
from omegaconf import DictConfig
from torch import Tensor

from pneumo.common import __version__
from pneumo.common.hardware import peak_memory
from pneumo.config.fingerprints import config_hash, settings_hash
from pneumo.data.datamodule import ChestXrayDataModule
from pneumo.data.index import Radiograph, positions
from pneumo.errors import NonFiniteLossError
from pneumo.metrics.definitions import measure
from pneumo.metrics.operating_point import decide
from pneumo.metrics.predictions import Predictions
from pneumo.models.checkpoint_reader import read_checkpoint
from pneumo.models.classifier import Batch, Classifier
from pneumo.models.ood_detector import Outliers, fit_outliers
from pneumo.runs.prediction_files import write_predictions
from pneumo.runs.results import Results, summarise
from pneumo.training.checkpoints import write_checkpoint
from pneumo.training.components import RunComponents
from pneumo.training.feature_cache import is_shortened, level_means
from pneumo.training.finite_values import require_finite_logits

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
        labels(datamodule, "val", validation["index"]),
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


def describe(cfg: DictConfig, components: RunComponents) -> Results:
    """Return the run's metadata."""
    datamodule, classifier, trainer = components.datamodule, components.classifier, components.trainer
    parameters = list(classifier.parameters())
    return {
        **{name: cfg.choices[name] for name in ("model", "optimizer", "experiment", "data")},
        "seed": cfg.seed,
        "image_size": cfg.data.image_size,
        "batch_size": cfg.data.batch_size,
        "precision": trainer.precision,
        "device": _device_name(trainer),
        "parameters_total": sum(parameter.numel() for parameter in parameters),
        "parameters_trainable": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        **{name: float(classifier.hparams[name]) for name in ("temperature", "threshold")},
        "threshold_rule": cfg.decision.threshold if cfg.data.task == "pneumonia" else "likeliest",
        "task": cfg.data.task,
        "split": datamodule.split,
        "fold": cfg.data.fold if cfg.data.split == "kfold" else -1,
        "folds": cfg.data.folds if cfg.data.split == "kfold" else -1,
        "config_hash": config_hash(cfg),
        "settings_hash": settings_hash(cfg),
        "data_hash": datamodule.data_hash,
        "git_commit": _git_commit(),
        "torch_version": str(torch.__version__),
        "pneumo_version": __version__,
    }


def measure_cost(trainer: Trainer, datamodule: ChestXrayDataModule) -> Results:
    """Tell what training cost, all parts of a run that was interrupted taken together, and its peak memory in bytes."""
    timer = next(callback for callback in trainer.callbacks if isinstance(callback, Timer))  # type: ignore[attr-defined]
    seconds = timer.time_elapsed("train")
    batches, images = int(trainer.num_training_batches), len(datamodule.splits["train"])  # of an epoch
    if batches < len(trainer.train_dataloader):  # type: ignore[arg-type] # its declared type is that of any loader
        images = min(images, batches * datamodule.steps_per_batch * trainer.world_size * datamodule.batch_size)
    return {
        "epochs": trainer.current_epoch,
        "train_seconds": seconds,
        "samples_per_second": images * trainer.current_epoch / seconds,
        "peak_memory_bytes": peak_memory(trainer.strategy.root_device),
    }


def measure_quality(checkpoint: Mapping[str, Any]) -> Results:
    """Return the metrics that training and validation logged in the tested checkpoint's epoch."""
    logged = {name: value for name, value in checkpoint["metrics"].items() if name.startswith(("train/", "val/"))}
    return {
        **{name.replace("/", "_"): value + 0.0 for name, value in logged.items()},  # + 0.0: no negative zero is written
        "best_epoch": checkpoint["epoch"] + 1,
    }


def write_answers(folder: Path, validation: Batch, datamodule: ChestXrayDataModule, classifier: Classifier) -> Results:
    """Write predictions.csv, of the test images, and validation.csv, of the tested checkpoint's epoch.

    Returns:
        The metrics that follow from them. The status among them is `partial` if images of the test set were left out,
        as by trainer.limit_test_batches.

    Raises:
        NonFiniteLossError: An image has logits that are infinite or no number; then neither file is written.
    """
    tested = _predict("test", classifier.answers["test"], datamodule, classifier)
    held_out = _predict("val", validation, datamodule, classifier)
    write_predictions(folder / "predictions.csv", tested)
    write_predictions(folder / "validation.csv", held_out)
    return {
        "status": "done" if len(tested.label) == len(datamodule.splits["test"]) else "partial",
        **summarise(tested),
        **{f"val_{name}": value for name, value in measure(held_out).items()},
    }


def labels(datamodule: ChestXrayDataModule, split: str, index: Tensor) -> npt.NDArray[np.int64]:
    """Give the labels of a split's images by their places in it, (N,)."""
    return np.array([datamodule.splits[split][i].label for i in index.tolist()])


def _predict(split: str, answers: Batch, datamodule: ChestXrayDataModule, classifier: Classifier) -> Predictions:
    images = [datamodule.splits[split][i] for i in answers["index"].tolist()]
    label = torch.tensor([image.label for image in images])
    predictions = classifier.predictions(answers["logits"], label, classifier.hparams["threshold"])
    assert predictions.odds is not None
    if broken := np.flatnonzero(~np.isfinite(predictions.odds).all(axis=1)).tolist():
        raise NonFiniteLossError(
            f"The network's output is not finite for {len(broken)} of {len(images)} {split} images, the first of which "
            f"is {images[broken[0]].path}, so no results are written. If that image is intact, the weights have "
            "diverged: lower optimizer.lr or set trainer.precision=32-true, and train again."
        )
    paths, patients, subtypes = zip(*((image.path, image.patient, image.subtype) for image in images), strict=True)
    return replace(predictions, paths=paths, patients=patients, subtypes=subtypes)


def _device_name(trainer: Trainer) -> str:
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _git_commit() -> str:
    """Give the commit of pneumo's own checkout, with -dirty after it if tracked files differ, else `unknown`."""
    try:
        _git("ls-files", "--error-unmatch", Path(__file__).name)  # a venv may lie in the checkout of something else
        return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
