"""Interface between a run and its loggers: the run's description, figures, predictions and results."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from lightning import Trainer
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from pneumo.config.fingerprints import other_overrides, relevant_config
from pneumo.config.invocation import hydra_settings
from pneumo.metrics.definitions import METRICS
from pneumo.metrics.predictions import Predictions
from pneumo.runs.results import Results

# TensorBoard shows the first five metrics in this order.
_FIRST = ("test_accuracy", "test_auroc", "test_sensitivity", "test_specificity", "train_accuracy")
_LAST = ("best_epoch", "train_seconds", "samples_per_second", "parameters_trainable", "collapsed")
_METRICS = dict.fromkeys((*_FIRST, *(f"test_{name}" for name in METRICS), *_LAST))


@dataclass(frozen=True)
class Setup:
    """Description of a run for its loggers."""

    hyperparameters: dict[str, str | int | float]  # the columns of tables of runs: model, optimizer, lr, seed, ...
    swept: Mapping[str, str | float]  # hyperparameters that differ within the run's sweep
    settings: dict[str, Any]  # all settings that affect results: dotted keys, plain values
    config: dict[str, Any]  # the whole configuration: nested, plain values
    yaml: str  # the whole configuration

    @property
    def nested(self) -> dict[str, Any]:
        """Return the hyperparameters, and the whole configuration under the key `config`."""
        return {**self.hyperparameters, "config": self.config}


@runtime_checkable
class ResultLogger(Protocol):
    """Logger that accepts what a run shows next to the scalars of Lightning."""

    def log_setup(self, setup: Setup) -> None:
        """Log configuration and hyperparameters, before training."""

    def log_images(self, images: Mapping[str, bytes], epochs: int) -> None:
        """Log PNG files by their tags, such as test/roc, after a number of epochs."""

    def log_predictions(self, predictions: Predictions, epochs: int) -> None:
        """Log the predictions of the test."""

    def log_results(self, results: Results, setup: Setup, epochs: int) -> None:
        """Log the content of results.json."""

    def close(self, failed: bool) -> None:
        """End the run, after results.json is written or the run has failed; this may wait for uploads."""


class OtherLogger:
    """Hyperparameters and results for a logger of Lightning or of another package."""

    def __init__(self, logger: Logger) -> None:
        """Initialize with the logger."""
        self.logger = logger

    def log_setup(self, setup: Setup) -> None:
        """Log hyperparameters and configuration."""
        self.logger.log_hyperparams(setup.nested)

    def log_images(self, images: Mapping[str, bytes], epochs: int) -> None:
        """Log nothing: Lightning has no common method for images."""

    def log_predictions(self, predictions: Predictions, epochs: int) -> None:
        """Log nothing: Lightning has no common method for predictions."""

    def log_results(self, results: Results, setup: Setup, epochs: int) -> None:
        """Log the final metrics."""
        self.logger.log_metrics(final_metrics(results), epochs)
        self.logger.save()

    def close(self, failed: bool) -> None:
        """Do nothing: Lightning has finalized the logger."""


def run_loggers(trainer: Trainer) -> list[ResultLogger]:
    """Return the trainer's loggers with the methods of `ResultLogger`."""
    return [logger if isinstance(logger, ResultLogger) else OtherLogger(logger) for logger in trainer.loggers]


@contextmanager
def closing_loggers(trainer: Trainer) -> Iterator[None]:
    """Close the trainer's loggers at the end, also after an exception outside of Lightning."""
    failed = True
    try:
        yield
        failed = False
    finally:
        for logger in run_loggers(trainer):
            logger.close(failed)


def describe_setup(cfg: DictConfig, trainer: Trainer, swept: Mapping[str, str | float]) -> Setup:
    """Describe a run for its loggers; `swept` has the hyperparameters that differ within its sweep."""
    hydra, config = hydra_settings(), OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(config, dict)
    hyperparameters = {
        **{name: cfg.choices[name] for name in ("model", "optimizer", "data", "experiment")},
        "lr": cfg.optimizer.lr,
        "seed": cfg.seed,
        "batch_size": cfg.data.batch_size,
        "image_size": cfg.data.image_size,
        "epochs": cfg.trainer.max_epochs,
        "precision": trainer.precision,
        "overrides": other_overrides(hydra.overrides.task) if hydra else "",
    }
    plain = {str(key): value for key, value in config.items()}
    return Setup(hyperparameters, swept, relevant_config(cfg), plain, OmegaConf.to_yaml(cfg, resolve=True))


def by_epoch(metrics: Mapping[str, float], step: int | None) -> tuple[dict[str, float], int | None]:
    """Return scalars without the epoch, and the number of finished epochs as their step.

    Epochs are comparable between runs regardless of batch size. Scalars without an epoch keep their step.
    """
    shown = {name: value for name, value in metrics.items() if name != "epoch"}
    if "epoch" in metrics:  # counts the epochs before this one; the test follows the last epoch
        step = round(metrics["epoch"]) + (not any(name.startswith("test/") for name in shown))
    return shown, step


def final_metrics(results: Results) -> dict[str, float]:
    """Return the results that loggers show as the metrics of the whole run."""
    return {f"final/{name.replace('test_', '')}": float(results[name]) for name in _METRICS}
