"""The loss from validation to test, split into ranking and threshold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.table import Table
from rich.text import Text

from pneumo.common.terminal import PlainTable
from pneumo.metrics.definitions import estimates
from pneumo.metrics.intervals import Estimate, subtract
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.summary import TITLES
from pneumo.runs.prediction_files import read_predictions
from pneumo.runs.results import Results

SHOWN = {name: TITLES[name] for name in ("auroc", "sensitivity", "specificity", "balanced_accuracy")}


class Shift(NamedTuple):
    """The same checkpoint and threshold on two sets of images."""

    validation: Predictions  # for held-out training images, by which checkpoint and, maybe, threshold were chosen
    test: Predictions  # for the official test images
    held_out: Mapping[str, Estimate]  # the metrics on the validation images
    official: Mapping[str, Estimate]  # likewise on the test images
    loss: Mapping[str, Estimate]  # the first less the second, of SHOWN
    oracle: float  # highest balanced accuracy of a threshold chosen on the test images: a bound, never a result
    oracle_threshold: float  # that threshold

    @property
    def by_threshold(self) -> float:
        """The loss of balanced accuracy, at most, that another threshold would have saved."""
        return self.oracle - self.official["balanced_accuracy"].value

    @property
    def by_ranking(self) -> float:
        """The rest of it, which no threshold saves; negative if the best threshold is better than validation was."""
        return self.held_out["balanced_accuracy"].value - self.oracle


def measure_shift(validation: Predictions, test: Predictions) -> Shift:
    """Compare predictions for two sets of images, each with both classes."""
    held_out, official = estimates(validation), estimates(test)
    loss = {name: subtract(held_out[name], official[name]) for name in SHOWN}
    return Shift(validation, test, held_out, official, loss, *best_threshold(test))


def best_threshold(predictions: Predictions) -> tuple[float, float]:
    """Return the highest balanced accuracy that any threshold of the score reaches, and the probability at the lowest.

    Where probabilities round to the same number, a threshold of the probability reaches less.
    """
    scores, index = np.unique(predictions.score, return_index=True)
    steps = np.concatenate(([-np.inf], scores))  # above each of them an image is positive
    above, below = (np.sort(predictions.score[predictions.positive == side]) for side in (True, False))
    sensitivity = 1 - np.searchsorted(above, steps, side="right") / len(above)
    specificity = np.searchsorted(below, steps, side="right") / len(below)
    balanced = (sensitivity + specificity) / 2
    best = int(balanced.argmax())
    return float(balanced[best]), float(predictions.positive_probability[index[best - 1]]) if best else 0.0


def read_shift(folder: Path, results: Results) -> Shift | str:
    """Compare a run's validation.csv with its predictions.csv, or say why that cannot be."""
    if not (folder / "validation.csv").is_file():
        return "the run left no validation.csv: pneumo wrote none when it ran"
    found = [read_predictions(folder, results, name) for name in ("validation.csv", "predictions.csv")]
    for predictions, name in zip(found, ("validation", "test"), strict=True):
        if not predictions.has_both_classes:
            return f"its {name} images are all of one class"
    return measure_shift(*found)


def shift_table(shift: Shift) -> Table:
    """Lay out the two sides, and where the balanced accuracy went."""
    title = f"From {len(shift.validation.positive):,} validation to {len(shift.test.positive):,} test images"
    table = PlainTable(title, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("")
    for head in ("validation", "test", "loss"):
        table.add_column(Text(f"{head}\n(95\u00a0% interval)"), justify="right", no_wrap=True)
    for name, metric in SHOWN.items():
        both = shift.held_out[name], shift.official[name]
        sides = (f"{value:.3f} ({low:.3f}, {high:.3f})" for value, low, high in both)
        value, low, high = shift.loss[name]
        table.add_row(Text(metric.replace(" ", "\n")), *sides, f"{value:+.3f} ({low:.3f}, {high:.3f})")
    return table


def explain_shift(shift: Shift) -> str:
    """Say how much of the loss is the threshold's and how much the ranking's."""
    return (
        "Both at the run's own threshold. The loss of balanced accuracy, "
        f"{shift.loss['balanced_accuracy'].value:+.3f}, is at most {shift.by_threshold:+.3f} the threshold's: the best "
        f"of all thresholds on the test images, {shift.oracle_threshold:.3g}, would have reached {shift.oracle:.3f}. "
        "That is an oracle, chosen on the test images: a bound, not a result. The rest, at least "
        f"{shift.by_ranking:+.3f}, is the ranking's, as is the loss of AUROC. Validation had a part in the choices "
        "that were made, so its own figures are a little too good."
    )
