"""The record of a run: what it was, how good it is, what it cost."""

import subprocess
from pathlib import Path

import numpy as np
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Timer
from omegaconf import DictConfig

import pneumo
from pneumo.checkpoints import read_checkpoint
from pneumo.config import config_hash, settings_hash
from pneumo.data.datamodule import ChestXrayDataModule
from pneumo.evaluation.results import Results, write_predictions
from pneumo.evaluation.summary import summarise
from pneumo.hardware import peak_memory
from pneumo.models.classifier import Classifier


def describe(cfg: DictConfig, datamodule: ChestXrayDataModule, classifier: Classifier, trainer: Trainer) -> Results:
    """Tell what was run."""
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
        "threshold": float(cfg.model.threshold),
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
    steps = int(trainer.num_training_batches) * datamodule.steps_per_batch * trainer.world_size
    images = min(len(datamodule.splits["train"]), steps * datamodule.batch_size) * trainer.current_epoch
    return {
        "epochs": trainer.current_epoch,
        "train_seconds": seconds,
        "samples_per_second": images / seconds,
        "peak_memory_bytes": peak_memory(trainer.strategy.root_device),
    }


def measure_quality(trainer: Trainer, best: str) -> Results:
    """Tell how good the tested checkpoint is."""
    checkpoint = read_checkpoint(Path(best))
    return {
        # + 0.0: a negative zero is written as zero
        **{name.replace("/", "_"): float(value) + 0.0 for name, value in trainer.callback_metrics.items()},
        "train_accuracy": checkpoint["metrics"]["train/accuracy"],
        **{f"val_{name}": checkpoint["metrics"][f"val/{name}"] for name in ("loss", "accuracy", "auroc")},
        "best_epoch": checkpoint["epoch"] + 1,
    }


def write_test_predictions(
    path: Path, threshold: float, datamodule: ChestXrayDataModule, classifier: Classifier
) -> Results:
    """Write predictions.csv from what the classifier kept of its test, and give the figures that follow from it.

    The status among them is `partial` if images of the test set were left out, as by trainer.limit_test_batches.
    """
    probability = classifier.tested["probability"].numpy()
    images = [datamodule.splits["test"][i] for i in classifier.tested["index"].tolist()]
    label = np.array([image.label for image in images])
    prediction = (probability > threshold).astype(np.int64)
    write_predictions(path, [image.path for image in images], label, probability, prediction, datamodule.classes)
    whole = len(images) == len(datamodule.splits["test"])
    figures = summarise(label, probability, prediction, [image.subtype for image in images])
    return {"status": "done" if whole else "partial", **figures}


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
