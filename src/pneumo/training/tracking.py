"""Interface between a run and its loggers: the run's description, figures, predictions and results."""

import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from lightning import Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from pneumo.common.text import short_line
from pneumo.config.fingerprints import other_overrides, relevant_config
from pneumo.config.invocation import hydra_settings
from pneumo.errors import ConfigError
from pneumo.metrics.definitions import METRICS
from pneumo.metrics.predictions import Predictions
from pneumo.runs.results import Results
from pneumo.runs.status import read_tracker_ids, write_tracker_id

# TensorBoard shows the first five metrics in this order.
_FIRST = ("test_accuracy", "test_auroc", "test_sensitivity", "test_specificity", "train_accuracy")
_LAST = ("best_epoch", "train_seconds", "samples_per_second", "parameters_trainable", "collapsed")
_METRICS = dict.fromkeys((*_FIRST, *(f"test_{name}" for name in METRICS), *_LAST))
_log = logging.getLogger(__name__)


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

    def close(self) -> None:
        """End the run, after results.json is written; this may wait for uploads."""


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

    def close(self) -> None:
        """Do nothing: Lightning has finalized the logger."""


class Tracker(Logger):
    """Logger that sends a run to an experiment tracker; steps are epochs.

    If the tracker fails when the run starts, an error is raised. Later, it logs a warning and the run continues without
    the tracker, since results.json must not depend on a server. A resumed run continues the tracker's run, whose ID is
    stored in the run folder.
    """

    title: ClassVar[str]
    extra: ClassVar[str]  # of pneumo, and key in conf/logger/
    errors: tuple[type[Exception], ...] = (OSError,)  # that the tracker raises

    def __init__(self, run_dir: str, project: str, run_name: str) -> None:
        """Initialize with the run folder, the project or experiment that groups runs, and the run's name."""
        super().__init__()
        self.run_dir, self.project, self.run_name = Path(run_dir), project, run_name
        self.run_id = ""  # before the run has started
        self._active = False

    @property
    def name(self) -> str:
        """Return the project."""
        return self.project

    @property
    def version(self) -> str | None:
        """Return the ID of the run; None before it has started."""
        return self.run_id or None

    @property
    def save_dir(self) -> str:
        """Return the run folder."""
        return str(self.run_dir)

    @rank_zero_only
    def log_setup(self, setup: Setup) -> None:
        """Start the tracker's run, or continue it, and log configuration and hyperparameters."""
        previous = read_tracker_ids(self.run_dir).get(self.extra)
        try:
            self.run_id = self.start(previous)
            self.send_setup(setup)
        except self.errors as error:
            raise ConfigError(
                f"logger.{self.extra} cannot log to {self.address} ({short_line(error, 300).rstrip('.')}). Correct its "
                "settings or start its server, or use another logger, such as logger=tensorboard."
            ) from error
        write_tracker_id(self.run_dir, self.extra, self.run_id)
        self._active = True
        _log.info("%s run %s in %s", self.title, self.run_id, self.address)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 (Lightning's signature)
        """Log nothing: `log_setup` logs all hyperparameters."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scalars by the number of epochs."""
        shown, epochs = by_epoch(metrics, step)
        self._attempt(lambda: self.send_metrics(shown, epochs or 0))

    @rank_zero_only
    def log_images(self, images: Mapping[str, bytes], epochs: int) -> None:
        """Log PNG files by their tags."""
        self._attempt(lambda: self.send_images(images, epochs))

    def log_predictions(self, predictions: Predictions, epochs: int) -> None:
        """Log nothing: file names may identify patients."""

    @rank_zero_only
    def log_results(self, results: Results, setup: Setup, epochs: int) -> None:
        """Log the final metrics."""
        self._attempt(lambda: self.send_results(final_metrics(results), epochs))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Mark the run as failed; Lightning also reports the success of each stage, after which the run continues."""
        if status != "success":
            self._end(failed=True)

    @rank_zero_only
    def close(self) -> None:
        """Mark the run as finished."""
        self._end(failed=False)

    @property
    @abstractmethod
    def address(self) -> str:
        """Return where the tracker stores runs, for messages."""

    @abstractmethod
    def start(self, run_id: str | None) -> str:
        """Start a run, or continue the one with this ID; return its ID."""

    @abstractmethod
    def send_setup(self, setup: Setup) -> None:
        """Send configuration and hyperparameters."""

    @abstractmethod
    def send_metrics(self, metrics: Mapping[str, float], epochs: int) -> None:
        """Send scalars."""

    @abstractmethod
    def send_images(self, images: Mapping[str, bytes], epochs: int) -> None:
        """Send PNG files."""

    @abstractmethod
    def send_results(self, metrics: Mapping[str, float], epochs: int) -> None:
        """Send the final metrics."""

    @abstractmethod
    def end(self, failed: bool) -> None:
        """End the run."""

    def _end(self, failed: bool) -> None:
        self._attempt(lambda: self.end(failed))
        self._active = False

    def _attempt(self, send: Callable[[], None]) -> None:
        """Call a function that uses the tracker; after an error, do not use it again."""
        if not self._active:
            return
        try:
            send()
        except self.errors as error:
            self._active = False
            _log.warning(
                "%s failed (%s), so the run continues without it. Its results will be in %s.",
                self.title,
                short_line(error, 300).rstrip("."),
                self.run_dir / "results.json",
            )


def run_loggers(trainer: Trainer) -> list[ResultLogger]:
    """Return the trainer's loggers with the methods of `ResultLogger`."""
    return [logger if isinstance(logger, ResultLogger) else OtherLogger(logger) for logger in trainer.loggers]


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
