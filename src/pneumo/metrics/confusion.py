"""Confusion tables: their metrics, and 95 % intervals of these by simulation.

Tables have true classes in rows and predicted ones in columns, (R, C, C); counts may be fractions. Of two classes, the
second is positive. Of more, sensitivity, specificity and F1 are means over the classes, each against the rest. 0
replaces what an absent class leaves undefined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import betaincinv
from scipy.stats.qmc import Sobol

from pneumo.metrics.intervals import Array, Interval

_DRAWS = 13  # 2**13: an end of an interval is known to a hundredth of a standard deviation


def accuracy(tables: Array) -> Array:
    """Compute the proportion of images that are predicted right, (R,)."""
    return np.asarray(_diagonal(tables).sum(axis=1) / tables.sum(axis=(1, 2)))


def sensitivity(tables: Array) -> Array:
    """Compute the proportion of positive images that are predicted so, (R,)."""
    return _average(divide(_diagonal(tables), tables.sum(axis=2)))


def specificity(tables: Array) -> Array:
    """Compute the proportion of negative images that are predicted so, (R,)."""
    rest = tables.sum(axis=(1, 2))[:, None] - tables.sum(axis=2)
    return _average(divide(rest - tables.sum(axis=1) + _diagonal(tables), rest))


def balanced_accuracy(tables: Array) -> Array:
    """Compute the mean over all classes of the proportion that is predicted right, (R,)."""
    return np.asarray(divide(_diagonal(tables), tables.sum(axis=2)).mean(axis=1))


def f1(tables: Array) -> Array:
    """Compute the harmonic mean of sensitivity and precision, (R,)."""
    return _average(divide(2 * _diagonal(tables), tables.sum(axis=2) + tables.sum(axis=1)))


def mcc(tables: Array) -> Array:
    """Compute Matthews' correlation coefficient, (R,); 0 where a single class is present or predicted."""
    total, actual, predicted = tables.sum(axis=(1, 2)), tables.sum(axis=2), tables.sum(axis=1)
    spread = (total**2 - (actual**2).sum(axis=1)) * (total**2 - (predicted**2).sum(axis=1))
    agreement = total * _diagonal(tables).sum(axis=1) - (actual * predicted).sum(axis=1)
    return np.asarray(agreement / np.sqrt(np.where(spread > 0, spread, 1)))


def divide(part: Array, whole: Array) -> Array:
    """Divide counts by counts that include them; 0 where there are none."""
    return np.asarray(part / np.where(whole > 0, whole, 1))


def posterior_interval(metric: Callable[[Array], Array], table: Array, drawn: Array) -> Interval:
    """Compute the 95 % interval of a metric of a table (C, C) from those that `draw_tables` drew, (R, C, C).

    It is the middle 95 % of the metric over these draws, extended to the metric's own value where that lies outside, as
    when all images are right. No table has an interval of width zero.
    """
    value = float(metric(table[None])[0])
    low, high = np.quantile(metric(drawn), (0.025, 0.975))
    return float(min(low, value)), float(max(high, value))


def draw_tables(table: Array, sizes: Sequence[float] | None = None) -> Array:
    """Draw confusion tables of tests with these numbers of images of each class, (R, C, C), from one, (C, C).

    Each row of the table is a multinomial sample of its class. Its probabilities are drawn from their posterior under
    a Dirichlet prior of 1/2 image right and 1 / classes images wrong, divided evenly among the wrong cells. With two
    classes this is Jeffreys' prior; with more, a mean over classes would add up the bias of 1/2 in each. Draws are
    quasi-random: the same table has the same ones. `sizes` are the effective numbers of images of each class, (C,).

    Source: L. D. Brown, T. T. Cai, A. DasGupta, Interval Estimation for a Binomial Proportion, 2001, section 3
    (Jeffreys' interval of one share). Coverage of this extension was simulated: docs/EVALUATION.md.
    """
    totals = table.sum(axis=1, keepdims=True)
    known = table if sizes is None else table * (np.array(sizes)[:, None] / totals)
    classes = len(table)
    prior = np.where(np.eye(classes, dtype=bool), 1 / 2, 1 / (classes * (classes - 1)))
    return np.asarray(_dirichlet(known + prior) * totals)


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


def _diagonal(tables: Array) -> Array:
    return np.asarray(np.diagonal(tables, axis1=1, axis2=2))


def _average(of_classes: Array) -> Array:
    """Average over the classes, (R, C) to (R,); of two classes the second alone counts."""
    return of_classes[:, 1] if of_classes.shape[1] == 2 else of_classes.mean(axis=1)
