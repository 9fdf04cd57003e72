"""95 % intervals in closed form."""

from __future__ import annotations

from math import hypot
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from scipy.stats import binomtest, norm

Interval = tuple[float, float]

RESIDUE = 1e-12  # deviations below it are rounding errors


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


def unvaried_interval(value: float, total: int, top: float = 1.0) -> Interval:
    """Compute the interval of a mean over images that show no variation, (0 to top).

    Wilson's interval of 0 in `total` is the fraction of images that may behave otherwise, all at 0 or all at the top.

    Args:
        value: The mean.
        total: Number of images; of a metric that compares classes, that of the smallest class.
        top: Largest value of an image.
    """
    alike = wilson(total, total)[0]
    return value * alike, value + (top - value) * (1 - alike)


def unvaried_difference(value: float, total: int) -> Interval:
    """Compute the interval of a difference, -1 to 1, of which no resample of `total` images differs."""
    low, high = unvaried_interval(value + 1, total, 2.0)
    return low - 1, high - 1


def zero_residue(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Replace what rounding leaves of zeros by zeros."""
    return np.where(np.abs(values) < RESIDUE, 0.0, values)


def logit_interval(value: float, deviation: float, total: int) -> Interval:
    """Give the interval of an area, which keeps within 0 and 1 and reaches further to the middle.

    At 0 and 1 themselves, where nothing varies, it is Wilson's of a share.

    Source: K. Boyd, K. H. Eng, C. D. Page, Area under the precision-recall curve: point estimates and confidence
    intervals, 2013, section 3.

    Args:
        value: The area.
        deviation: Its standard deviation.
        total: How many images a share would be of.
    """
    if value in (0, 1):
        return wilson(round(value * total), total)
    half = float(norm.ppf(0.975)) * deviation / (value * (1 - value))
    low, high = expit(logit(value) + np.array([-half, half]))
    return float(low), float(high)


def share_interval(hits: int, total: int) -> Interval:
    """Give Wilson's interval of a share, the whole range where nothing was counted."""
    return wilson(hits, total) if total else (0.0, 1.0)


def subtract(first: Estimate, second: Estimate) -> Estimate:
    """Give the difference of two independent numbers, its interval put together from theirs.

    Source: G. Y. Zou, A. Donner, Construction of confidence limits about effect measures: a general approach, 2008,
    equation 1 (MOVER); of two of Wilson's intervals it makes Newcombe's (1998, method 10).
    """
    difference = first.value - second.value
    low = difference - hypot(first.value - first.low, second.high - second.value)
    high = difference + hypot(first.high - first.value, second.value - second.low)
    return Estimate(difference, low, high)
