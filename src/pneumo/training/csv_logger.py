"""CSV logger of a run: one row per epoch."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from pneumo.common.files import write_text
from pneumo.metrics.predictions import Predictions
from pneumo.runs.results import Results
from pneumo.training.tracking import Setup, by_epoch, final_metrics

FOLDER = "csv"
CSV_FILES = tuple(f"{FOLDER}/{name}" for name in ("metrics.csv", "hparams.yaml"))  # Lightning's names
_EPOCH = "epoch"


class CSVRunLogger(Logger):
    """Logger that writes csv/metrics.csv and csv/hparams.yaml in the run folder.

    Lightning's CSVLogger writes the training and the validation metrics of an epoch to different rows, and deletes the
    epochs before a resumed one.
    """

    def __init__(self, save_dir: str) -> None:
        """Initialize with the run folder."""
        super().__init__()
        self._metrics, self._parameters = (Path(save_dir) / name for name in CSV_FILES)
        self._rows: dict[int, dict[str, Any]] = {}  # by the number of finished epochs

    @property
    def name(self) -> str:
        """Return the name of the folder."""
        return FOLDER

    @property
    def version(self) -> str:
        """Return no version: each run has its own folder."""
        return ""

    @property
    def save_dir(self) -> str:
        """Return the run folder."""
        return str(self._metrics.parent.parent)

    @rank_zero_only
    def log_setup(self, setup: Setup) -> None:
        """Write the hyperparameters; read the epochs before a resumed one."""
        write_text(self._parameters, yaml.safe_dump(setup.nested, sort_keys=False, allow_unicode=True))
        if self._metrics.is_file():
            with self._metrics.open(newline="", encoding="utf-8") as file:
                self._rows = {int(row[_EPOCH]): {**row} for row in csv.DictReader(file)}

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 (Lightning's signature)
        """Log nothing: `log_setup` writes all hyperparameters."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add scalars to the row of their epoch."""
        shown, epochs = by_epoch(metrics, step)
        self._rows.setdefault(epochs or 0, {}).update({_EPOCH: epochs or 0, **shown})

    def log_images(self, images: Mapping[str, bytes], epochs: int) -> None:
        """Log nothing: the images are in figures/."""

    def log_predictions(self, predictions: Predictions, epochs: int) -> None:
        """Log nothing: the predictions are in predictions.csv."""

    @rank_zero_only
    def log_results(self, results: Results, setup: Setup, epochs: int) -> None:
        """Add the final metrics to the last row."""
        self.log_metrics(final_metrics(results), epochs)
        self.save()

    def close(self, failed: bool) -> None:
        """Do nothing: all rows are written."""

    @rank_zero_only
    def save(self) -> None:
        """Write metrics.csv; Lightning calls this after each `log_metrics`."""
        text = io.StringIO()
        columns = dict.fromkeys(name for row in self._rows.values() for name in row)
        writer = csv.DictWriter(text, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for _, row in sorted(self._rows.items()))
        write_text(self._metrics, text.getvalue())
