"""Metadata of a run for results.json: settings, device, cost and versions."""

import subprocess
from pathlib import Path

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Timer
from omegaconf import DictConfig

from pneumo.common import __version__
from pneumo.common.hardware import peak_memory
from pneumo.config.fingerprints import config_hash, settings_hash
from pneumo.runs.results import Results
from pneumo.training.components import RunComponents


def run_metadata(cfg: DictConfig, components: RunComponents) -> Results:
    """Return the run's settings, device, network size, operating point, hashes and versions, for results.json."""
    datamodule, classifier, trainer = components.datamodule, components.classifier, components.trainer
    parameters = list(classifier.parameters())
    task = "multiclass" if len(cfg.data.classes) > 2 else cfg.data.task
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
        "threshold_rule": cfg.decision.threshold if task == "pneumonia" else "likeliest",
        "task": task,
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


def measure_cost(components: RunComponents) -> Results:
    """Return epochs, seconds, throughput and peak memory (bytes) of training.

    In a resumed run, epochs and seconds include those of earlier processes.
    """
    datamodule, trainer = components.datamodule, components.trainer
    seconds = components.callback(Timer).time_elapsed("train")
    batches, images = int(trainer.num_training_batches), len(datamodule.splits["train"])  # per epoch
    if batches < len(trainer.train_dataloader):  # type: ignore[arg-type] # declared as any type of loader
        images = min(images, batches * datamodule.steps_per_batch * trainer.world_size * datamodule.batch_size)
    return {
        "epochs": trainer.current_epoch,
        "train_seconds": seconds,
        "samples_per_second": images * trainer.current_epoch / seconds,
        "peak_memory_bytes": peak_memory(trainer.strategy.root_device),
    }


def _device_name(trainer: Trainer) -> str:
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _git_commit() -> str:
    """Return the commit of pneumo's checkout, with -dirty if tracked files differ; `unknown` outside a checkout."""
    try:
        # Fails if pneumo is installed within the checkout of another project.
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
