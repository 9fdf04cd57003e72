"""Confusion matrices: metrics and their 95 % confidence intervals by simulation.

Rows are true classes and columns are predicted classes, (R, C, C); counts may be fractional. With two classes, the
second is positive. With more, sensitivity, specificity and F1 are one-vs-rest means over the classes. Values that are
undefined because a class is absent are 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import betaincinv
from scipy.stats.qmc import Sobol

from pneumo.metrics.intervals import Array, Interval

_LOG2_DRAWS = 13  # 2**13 draws determine interval ends to a hundredth of a standard deviation


def accuracy(tables: Array) -> Array:
    """Compute the proportion of images that are predicted correctly, (R,)."""
    return np.asarray(_diagonal(tables).sum(axis=1) / tables.sum(axis=(1, 2)))


def sensitivity(tables: Array) -> Array:
    """Compute the proportion of positive images that are predicted positive, (R,)."""
    return _average(divide(_diagonal(tables), tables.sum(axis=2)))


def specificity(tables: Array) -> Array:
    """Compute the proportion of negative images that are predicted negative, (R,)."""
    rest = tables.sum(axis=(1, 2))[:, None] - tables.sum(axis=2)
    return _average(divide(rest - tables.sum(axis=1) + _diagonal(tables), rest))


def balanced_accuracy(tables: Array) -> Array:
    """Compute the mean over all classes of the proportion that is predicted correctly, (R,)."""
    return np.asarray(divide(_diagonal(tables), tables.sum(axis=2)).mean(axis=1))


def f1(tables: Array) -> Array:
    """Compute the harmonic mean of sensitivity and precision, (R,)."""
    return _average(divide(2 * _diagonal(tables), tables.sum(axis=2) + tables.sum(axis=1)))


def mcc(tables: Array) -> Array:
    """Compute the Matthews correlation coefficient, (R,); 0 if a single class is present or predicted."""
    total, actual, predicted = tables.sum(axis=(1, 2)), tables.sum(axis=2), tables.sum(axis=1)
    spread = (total**2 - (actual**2).sum(axis=1)) * (total**2 - (predicted**2).sum(axis=1))
    agreement = total * _diagonal(tables).sum(axis=1) - (actual * predicted).sum(axis=1)
    return np.asarray(agreement / np.sqrt(np.where(spread > 0, spread, 1)))


def divide(part: Array, whole: Array) -> Array:
    """Divide parts by their totals; 0 where the total is 0."""
    return np.asarray(part / np.where(whole > 0, whole, 1))


def posterior_interval(metric: Callable[[Array], Array], table: Array, draws: Array) -> Interval:
    """Compute the 95 % confidence interval of a metric of a matrix, (C, C), from `draw_tables`, (R, C, C).

    It contains the middle 95 % of the metric over the draws, extended to the metric's value if that is outside, such as
    with only correct predictions. The width is never zero.
    """
    value = float(metric(table[None])[0])
    low, high = np.quantile(metric(draws), (0.025, 0.975))
    return float(min(low, value)), float(max(high, value))


def draw_tables(table: Array, sizes: Sequence[float] | None = None) -> Array:
    """Draw confusion matrices, (R, C, C), with the class sizes of one matrix, (C, C), from its posterior.

    Each row is a multinomial sample of its class. Its probabilities are drawn from the posterior under a Dirichlet
    prior of 1/2 correct image and 1 / classes wrong images, divided evenly among the wrong cells. With two classes this
    is the Jeffreys prior. With more, 1/2 in each wrong cell would bias means over classes. Draws are quasi-random, so
    equal matrices have equal draws. `sizes` are the effective sample sizes of the classes, (C,).

    Source: L. D. Brown, T. T. Cai, A. DasGupta, Interval Estimation for a Binomial Proportion, 2001, section 3
    (Jeffreys interval of one proportion). Simulated coverage of this extension: docs/APPENDIX.md.
    """
    totals = table.sum(axis=1, keepdims=True)
    counts = table if sizes is None else table * (np.array(sizes)[:, None] / totals)
    classes = len(table)
    prior = np.where(np.eye(classes, dtype=bool), 1 / 2, 1 / (classes * (classes - 1)))
    return np.asarray(_dirichlet(counts + prior) * totals)


def _dirichlet(parameters: Array) -> Array:
    """Draw the probabilities of each row by stick breaking at Sobol points, (R, classes, classes).

    Source: A. Gelman et al., Bayesian Data Analysis, 3rd edition, 2013, appendix A (a Dirichlet from beta draws).
    """
    classes = len(parameters)
    points = Sobol(classes * (classes - 1), scramble=False).random_base2(_LOG2_DRAWS) + 0.5**_LOG2_DRAWS / 2
    points = points.reshape(-1, classes, classes - 1)
    draws, remaining = np.empty((len(points), classes, classes)), np.ones((len(points), classes))
    for column in range(classes - 1):
        rest = parameters[:, column + 1 :].sum(axis=1)
        draws[:, :, column] = remaining * betaincinv(parameters[:, column], rest, points[:, :, column])
        remaining = remaining - draws[:, :, column]
    draws[:, :, -1] = remaining
    return draws


def _diagonal(tables: Array) -> Array:
    return np.asarray(np.diagonal(tables, axis1=1, axis2=2))


def _average(of_classes: Array) -> Array:
    """Average over the classes, (R, C) to (R,); with two classes, return the second."""
    return of_classes[:, 1] if of_classes.shape[1] == 2 else of_classes.mean(axis=1)
