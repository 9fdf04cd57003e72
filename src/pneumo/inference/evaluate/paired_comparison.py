"""Paired comparison of two networks on the same images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pneumo.errors import ConfigError
from pneumo.inference.evaluate.cohort import Cohort
from pneumo.inference.evaluate.performance import Performance, measure_performance
from pneumo.metrics.estimation import compare_accuracies, compare_aurocs
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.significance import Difference, holm

COMPARED = {"auroc": "AUROC", "accuracy": "accuracy", "sensitivity": "sensitivity", "specificity": "specificity"}


class PairedDifference(NamedTuple):
    """A metric's difference, evaluated network minus the other one."""

    difference: Difference
    holm: float  # p-value after the Holm correction over all metrics


class PairedComparison(NamedTuple):
    """Another network on the same images, and the differences to it."""

    other: Performance
    differences: dict[str, PairedDifference]  # by metric; metrics that require an absent class are left out


def compare_cohorts(cohort: Cohort, other: Cohort, name: str) -> PairedComparison:
    """Compare the predictions of two networks for the same images.

    The classes of each network are read as positive against negative. Intervals and tests are those of
    `pneumo.metrics.estimation`, with patients as clusters.

    Raises:
        ConfigError: The true labels differ, because the networks define other classes.
    """
    first, second = cohort.predictions.as_binary(), other.predictions.as_binary()
    if not np.array_equal(first.label, second.label):
        raise ConfigError(
            f"--against {name} has the classes {', '.join(other.predictions.classes)}, but the evaluated network has "
            f"{', '.join(cohort.predictions.classes)}. A paired comparison requires the same negative class in both. "
            "Use a checkpoint with these classes."
        )
    differences = {}
    for metric in COMPARED:
        if (difference := _compare(metric, first, second)) is not None:
            differences[metric] = difference
    corrected = holm([each.p for each in differences.values()])
    paired = {
        metric: PairedDifference(difference, p)
        for (metric, difference), p in zip(differences.items(), corrected, strict=True)
    }
    return PairedComparison(measure_performance(name, other.predictions), paired)


def _compare(metric: str, first: Predictions, second: Predictions) -> Difference | None:
    """Compare one metric; None if it requires an absent class."""
    chosen = {"sensitivity": first.positive, "specificity": ~first.positive}.get(metric, np.ones_like(first.positive))
    if not chosen.any() or (metric == "auroc" and not first.has_both_classes):
        return None
    test = compare_aurocs if metric == "auroc" else compare_accuracies
    pair = [[each.take(np.flatnonzero(chosen))] for each in (first, second)]
    return test(pair)[0, 1]
