"""The record of a run: what it was, how good it is, what it cost."""

import subprocess
from collections.abc import Mapping
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

import pneumo
from pneumo.building import RunComponents
from pneumo.data.datamodule import ChestXrayDataModule
from pneumo.errors import NonFiniteLossError
from pneumo.evaluation.answers import Predictions
from pneumo.evaluation.metrics import measure
from pneumo.evaluation.prediction_files import write_predictions
from pneumo.evaluation.results import Results
from pneumo.evaluation.summary import summarise
from pneumo.fingerprints import config_hash, settings_hash
from pneumo.hardware import peak_memory
from pneumo.models.classifier import Batch, Classifier


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
        "pneumo_version": pneumo.__version__,
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
