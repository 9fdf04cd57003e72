"""Metrics of confusion tables, and their 95 % intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv
from scipy.stats.qmc import Sobol

from pneumo.evaluation.intervals import Interval, whole_range

Array = npt.NDArray[np.float64]

_DRAWS = 13  # 2**13: an end of an interval is known to a hundredth of a standard deviation


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
        "mcc": agreement / np.sqrt(np.where(spread > 0, spread, 1)),  # 0 if a single class is predicted
    }


def count_intervals(table: Array, sizes: Sequence[float] | None = None) -> dict[str, Interval]:
    """Compute the 95 % interval of each of `count_metrics`, for a test with these numbers of images of each class.

    Each row of the table is a multinomial sample of its class. Its probabilities are drawn from their posterior under
    a Dirichlet prior of 1/2 image right and 1 / classes images wrong, divided evenly among the wrong cells. With two
    classes this is Jeffreys' prior; with more, a mean over classes would add up the bias of 1/2 in each. The interval
    is the middle 95 % of the metric over these draws, extended to the metric's own value where that lies outside, as
    when all images are right. No table has an interval of width zero. Draws are quasi-random: the same table has the
    same intervals.

    Source: L. D. Brown, T. T. Cai, A. DasGupta, Interval Estimation for a Binomial Proportion, 2001, section 3
    (Jeffreys' interval of one share). Coverage of this extension was simulated: docs/EVALUATION.md.

    Args:
        table: Rows true and columns predicted, (classes, classes), with images in each row.
        sizes: Effective number of images of each class, (classes,), where several are of one patient.
    """
    totals = table.sum(axis=1, keepdims=True)
    known = table if sizes is None else table * (np.array(sizes)[:, None] / totals)
    classes = len(table)
    prior = np.where(np.eye(classes, dtype=bool), 1 / 2, 1 / (classes * (classes - 1)))
    draws = count_metrics(_dirichlet(known + prior) * totals)
    found = {}
    for name, (value,) in count_metrics(table[None]).items():
        low, high = np.quantile(draws[name], (0.025, 0.975))
        least, most = whole_range(name)
        found[name] = max(least, float(min(low, value))), min(most, float(max(high, value)))
    return found


def _dirichlet(parameters: Array) -> Array:
    """Draw each row's probabilities by breaking a stick at Sobol's points, (R, classes, classes).

    Source: A. Gelman et al., Bayesian Data Analysis, 3rd edition, 2013, appendix A (a Dirichlet from beta draws).
    """
    classes = len(parameters)
    points = Sobol(classes * (classes - 1), scramble=False).random_base2(_DRAWS) + 0.5**_DRAWS / 2
    points = points.reshape(-1, classes, classes - 1)
    drawn, left = np.empty((len(points), classes, classes)), np.ones((len(points), classes))
    for column in range(classes - 1):
        rest = parameters[:, column + 1 :].sum(axis=1)
        drawn[:, :, column] = left * betaincinv(parameters[:, column], rest, points[:, :, column])
        left = left - drawn[:, :, column]
    drawn[:, :, -1] = left
    return drawn
