"""Metrics of confusion tables, and their 95 % intervals."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pneumo.evaluation.intervals import Interval, whole_range

Array = npt.NDArray[np.float64]

DRAWS = 10_000  # with which an end of an interval is known to a fortieth of a standard deviation
SEED = 0


def confusion_table(label: npt.NDArray[np.int64], prediction: npt.NDArray[np.int64], classes: int) -> Array:
    """Count images by true class (rows) and predicted class (columns), (classes, classes)."""
    counts = np.bincount(label * classes + prediction, minlength=classes**2)
    return counts.reshape(classes, classes).astype(np.float64)


def count_metrics(tables: Array) -> dict[str, Array]:
    """Compute the metrics that depend on counts alone.

    With two classes, the second is positive. With more, sensitivity, specificity and F1 are means over the classes,
    each against the rest. Where a metric needs an absent class, it is NaN.

    Args:
        tables: Confusion tables, rows true and columns predicted, (R, classes, classes); counts may be fractions.

    Returns:
        (R,) for each metric.
    """
    total, right = tables.sum(axis=(1, 2)), np.diagonal(tables, axis1=1, axis2=2)
    actual, predicted = tables.sum(axis=2), tables.sum(axis=1)
    rest = total[:, None] - actual
    averaged = slice(1, None) if tables.shape[1] == 2 else slice(None)
    with np.errstate(divide="ignore", invalid="ignore"):
        sensitivity, specificity = right / actual, (rest - predicted + right) / rest
        f1 = 2 * right / (actual + predicted)
    spread = (total**2 - (actual**2).sum(axis=1)) * (total**2 - (predicted**2).sum(axis=1))
    agreement = total * right.sum(axis=1) - (actual * predicted).sum(axis=1)
    return {
        "accuracy": right.sum(axis=1) / total,
        "sensitivity": sensitivity[:, averaged].mean(axis=1),
        "specificity": specificity[:, averaged].mean(axis=1),
        "balanced_accuracy": sensitivity.mean(axis=1),
        "f1": f1[:, averaged].mean(axis=1),
        "mcc": agreement / np.sqrt(np.maximum(spread, 1)),  # 0 if a single class is predicted
    }


def count_intervals(table: Array) -> dict[str, Interval]:
    """Compute the 95 % interval of each of `count_metrics`, for a test with these numbers of images of each class.

    Each row of the table is a multinomial sample of its class. Its probabilities are drawn from their posterior under
    a Dirichlet prior of 1/2 image right and 1 / classes images wrong, divided evenly among the wrong cells. With two
    classes this is Jeffreys' prior; with more, a mean over classes would add up the bias of 1/2 in each. The interval
    is the middle 95 % of the metric over these draws, extended to the metric's own value where that lies outside, as
    when all images are right. No table has an interval of width zero.

    Source: L. D. Brown, T. T. Cai, A. DasGupta, Interval Estimation for a Binomial Proportion, 2001, section 3.1
    (Jeffreys' interval of one share). Coverage of this extension was simulated: docs/EVALUATION.md.

    Args:
        table: Rows true and columns predicted, (classes, classes), with images in each row.
    """
    classes = len(table)
    prior = np.where(np.eye(classes, dtype=bool), 1 / 2, 1 / (classes * (classes - 1)))
    cells = np.random.default_rng(SEED).standard_gamma(table + prior, (DRAWS, classes, classes))
    draws = count_metrics(cells / cells.sum(axis=2, keepdims=True) * table.sum(axis=1)[:, None])
    found = {}
    for name, (value,) in count_metrics(table[None]).items():
        low, high = np.quantile(draws[name], (0.025, 0.975))
        least, most = whole_range(name)
        found[name] = max(least, float(min(low, value))), min(most, float(max(high, value)))
    return found
