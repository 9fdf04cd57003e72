"""Base of the loggers for experiment trackers, such as MLflow."""

import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from pneumo.common.text import short_line
from pneumo.errors import ConfigError
from pneumo.metrics.predictions import Predictions
from pneumo.runs.results import Results
from pneumo.runs.status import read_tracker_ids, write_tracker_id
from pneumo.training.tracking import Setup, by_epoch, final_metrics

_log = logging.getLogger(__name__)


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
    def close(self, failed: bool) -> None:
        """Mark the run as finished or failed."""
        self._end(failed)

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
