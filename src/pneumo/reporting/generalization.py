"""The drop in performance between two sets of images, such as validation and test, split into ranking and threshold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.table import Table
from rich.text import Text

from pneumo.common.terminal import PlainTable
from pneumo.common.text import format_probability
from pneumo.metrics.definitions import estimates
from pneumo.metrics.intervals import Estimate, subtract
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.summary import TITLES
from pneumo.runs.prediction_files import read_predictions
from pneumo.runs.results import Results

GAP_METRICS = {name: TITLES[name] for name in ("auroc", "sensitivity", "specificity", "balanced_accuracy")}


class GeneralizationGap(NamedTuple):
    """Metrics of a checkpoint on a first and on a second set of images: validation and test, or internal and external.

    The fields are named after validation and test.
    """

    validation: Predictions  # for held-out training images, used to select the checkpoint and possibly the threshold
    test: Predictions  # for the official test images
    validation_metrics: Mapping[str, Estimate]
    test_metrics: Mapping[str, Estimate]
    drop: Mapping[str, Estimate]  # validation minus test, for each of GAP_METRICS
    oracle: float  # highest balanced accuracy of a threshold selected on the test images: a bound, never a result
    oracle_threshold: float
    sets: tuple[str, str] = ("validation", "test")  # names of both sets
    thresholds: tuple[float, float] | None = None  # thresholds of both sets if they differ
    caution: str = (
        "The validation numbers are slightly optimistic, since validation images were used for model selection."
    )

    @property
    def threshold_drop(self) -> float:
        """Upper bound of the drop in balanced accuracy that another threshold would have avoided."""
        return self.oracle - self.test_metrics["balanced_accuracy"].value

    @property
    def ranking_drop(self) -> float:
        """Drop in balanced accuracy at the best threshold; negative if the oracle exceeds the validation value."""
        return self.validation_metrics["balanced_accuracy"].value - self.oracle


def measure_gap(validation: Predictions, test: Predictions) -> GeneralizationGap:
    """Compare predictions for two sets of images; each set must have both classes."""
    before, after = estimates(validation), estimates(test)
    drop = {name: subtract(before[name], after[name]) for name in GAP_METRICS}
    return GeneralizationGap(validation, test, before, after, drop, *best_threshold(test))


def best_threshold(predictions: Predictions) -> tuple[float, float]:
    """Return the highest balanced accuracy of any threshold on the score, and the lowest such threshold.

    The threshold is returned as a probability. If probabilities round to the same number, it reaches a lower balanced
    accuracy than the threshold on the score.
    """
    scores, index = np.unique(predictions.score, return_index=True)
    steps = np.concatenate(([-np.inf], scores))  # an image is predicted positive if its score is above the step
    positive, negative = (np.sort(predictions.score[predictions.positive == label]) for label in (True, False))
    sensitivity = 1 - np.searchsorted(positive, steps, side="right") / len(positive)
    specificity = np.searchsorted(negative, steps, side="right") / len(negative)
    balanced = (sensitivity + specificity) / 2
    best = int(balanced.argmax())
    return float(balanced[best]), float(predictions.positive_probability[index[best - 1]]) if best else 0.0


def read_gap(folder: Path, results: Results) -> GeneralizationGap | str:
    """Compare a run's validation.csv with its predictions.csv, or return the reason why this is impossible."""
    if not (folder / "validation.csv").is_file():
        return "the run has no validation.csv because its version of pneumo did not write one"
    parts = [read_predictions(folder, results, name) for name in ("validation.csv", "predictions.csv")]
    for predictions, name in zip(parts, ("validation", "test"), strict=True):
        if not predictions.has_both_classes:
            return f"its {name} images are all of one class"
    return measure_gap(*parts)


def gap_table(gap: GeneralizationGap) -> Table:
    """Build a table of the metrics on both sets and their drop."""
    first, second = gap.sets
    title = f"From {len(gap.validation.positive):,} {first} to {len(gap.test.positive):,} {second} images"
    table = PlainTable(title, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("")
    for header in (*gap.sets, "drop"):
        table.add_column(Text(f"{header}\n(95\u00a0% interval)"), justify="right", no_wrap=True)
    for name, metric in GAP_METRICS.items():
        both = gap.validation_metrics[name], gap.test_metrics[name]
        cells = (f"{value:.3f} ({low:.3f}, {high:.3f})" for value, low, high in both)
        value, low, high = gap.drop[name]
        table.add_row(Text(metric.replace(" ", "\n")), *cells, f"{value:+.3f} ({low:.3f}, {high:.3f})")
    return table


def describe_gap(gap: GeneralizationGap) -> str:
    """Describe which part of the drop is due to the threshold and which to the ranking."""
    first, second = gap.sets
    if gap.thresholds is None:
        start = f"{first.capitalize()} and {second} images have the same threshold."
    else:
        own, other = map(format_probability, gap.thresholds)
        start = f"The threshold is {own} for {first} and {other} for {second} images."
    return (
        f"{start} The drop in balanced accuracy is {gap.drop['balanced_accuracy'].value:.3f}. At most "
        f"{gap.threshold_drop:.3f} of this is due to the threshold: the best threshold on the {second} images, "
        f"{format_probability(gap.oracle_threshold)}, would have reached {gap.oracle:.3f}. That threshold is an "
        f"oracle, selected on the {second} images: a bound, not a result. The rest, at least {gap.ranking_drop:.3f}, "
        f"is due to the ranking, as is the drop in AUROC. {gap.caution}"
    )
