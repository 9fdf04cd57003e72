"""Paired comparison of two networks on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pneumo.data.labelled_images import LabelledSet
from pneumo.errors import ConfigError, DataError
from pneumo.inference.evaluate.cohort import Cohort, match_labels
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


def check_comparable(labelled: LabelledSet, classes: Sequence[str], others: Sequence[str], name: str) -> None:
    """Raise a ConfigError unless another network has the classes of the labels, and the same negative class.

    Args:
        labelled: The set; its labels must be among `classes`.
        classes: Classes of the evaluated network.
        others: Classes of the other network.
        name: File of the other network.

    Raises:
        ConfigError: The classes differ.
        DataError: A label is not a class of the evaluated network.
    """
    label = match_labels(labelled, classes)
    try:
        same = np.array_equal(match_labels(labelled, others) > 0, label > 0)
    except DataError:
        same = False
    if not same:
        raise ConfigError(
            f"--against {name} has the classes {', '.join(others)}, but the evaluated network has "
            f"{', '.join(classes)}. A paired comparison requires the labels of these images and the same negative "
            "class in both. Use a checkpoint with these classes."
        )


def compare_cohorts(cohort: Cohort, other: Cohort, name: str) -> PairedComparison:
    """Compare the predictions of two networks for the same images.

    The classes of each network are read as positive against negative. Intervals and tests are those of
    `pneumo.metrics.estimation`, with patients as clusters.

    Both networks must pass `check_comparable`.
    """
    first, second = cohort.predictions.as_binary(), other.predictions.as_binary()
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
