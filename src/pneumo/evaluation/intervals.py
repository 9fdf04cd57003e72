"""95 % intervals in closed form."""

from __future__ import annotations

from math import hypot
from typing import NamedTuple

from scipy.stats import binomtest

Interval = tuple[float, float]


class Estimate(NamedTuple):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


def wilson(hits: int, total: int) -> Interval:
    """Give the interval of a share: Wilson's score interval.

    Source: L. D. Brown, T. T. Cai, A. DasGupta, Interval Estimation for a Binomial Proportion, 2001, equation 4.
    """
    interval = binomtest(hits, total).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def subtract(first: Estimate, second: Estimate) -> Estimate:
    """Give the difference of two independent numbers, its interval put together from theirs.

    Source: G. Y. Zou, A. Donner, Construction of confidence limits about effect measures: a general approach, 2008,
    equation 1 (MOVER); of two of Wilson's intervals it makes Newcombe's (1998, method 10).
    """
    difference = first.value - second.value
    low = difference - hypot(first.value - first.low, second.high - second.value)
    high = difference + hypot(first.high - first.value, second.value - second.low)
    return Estimate(difference, low, high)
