"""95 % confidence intervals in closed form."""

from __future__ import annotations

from math import hypot, sqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from scipy.stats import norm

Array = npt.NDArray[np.float64]
Interval = tuple[float, float]
RESIDUE = 1e-12  # deviations below it are rounding errors
_EXPECTED = 4  # images of the widest spread that the variance of a mean is shrunk towards


class Estimate(NamedTuple):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


def wilson(hits: float, total: float) -> Interval:
    """Compute Wilson's score interval of a proportion; `hits` and `total` may be fractions, as effective numbers are.

    Source: L. D. Brown, T. T. Cai, A. DasGupta, Interval Estimation for a Binomial Proportion, 2001, equation 4.
    """
    proportion, square = hits / total, float(norm.ppf(0.975)) ** 2
    scale = 2 * (total + square)
    middle = (2 * total * proportion + square) / scale
    half = float(norm.ppf(0.975)) / scale * sqrt(4 * total * proportion * (1 - proportion) + square)
    return (middle - half if hits > 0 else 0.0), (middle + half if hits < total else 1.0)


def unvaried_interval(value: float, total: int, top: float = 1.0) -> Interval:
    """Compute the interval of a mean, from 0 to `top`, over `total` images that show no variation.

    Wilson's interval of 0 in `total` is the fraction of images that may behave otherwise, all at 0 or all at the top.
    """
    alike = wilson(total, total)[0]
    return value * alike, value + (top - value) * (1 - alike)


def unvaried_difference(value: float, total: int, reach: float = 1.0) -> Interval:
    """Compute the interval of a difference, -reach to reach, that is the same in all resamples of `total` images."""
    low, high = unvaried_interval(value + reach, total, 2 * reach)
    return low - reach, high - reach


def zero_residue(values: Array) -> Array:
    """Replace what rounding leaves of zeros by zeros."""
    return np.where(np.abs(values) < RESIDUE, 0.0, values)


def shrink_variance(variance: float, expected: float, units: int, weight: int) -> float:
    """Average a variance estimated from few images or patients, `units`, with the one expected without data."""
    return ((units - 1) * variance + weight * expected) / (units - 1 + weight)


def mean_interval(value: float, draws: Array, total: int, top: float = 1.0) -> Interval:
    """Compute the interval of a mean from bootstrap draws, (R,): their deviation on the logit scale.

    A few images with large errors decide the mean, and a small sample may have none of them. So the variance is shrunk
    towards that of images which are all at 0 or at the top. If all draws are the same, it is `unvaried_interval`.
    `total` is the number of patients, `top` the largest value of an image.
    """
    if np.ptp(draws) < RESIDUE:
        return unvaried_interval(value, total, top)
    fraction = value / top
    variance = shrink_variance(draws.var(ddof=1) / top**2, fraction * (1 - fraction) / total, total, _EXPECTED)
    low, high = logit_interval(fraction, sqrt(variance), total)
    return low * top, high * top


def logit_interval(value: float, deviation: float, total: int) -> Interval:
    """Compute the interval of an area, which keeps within 0 and 1 and reaches further to the middle.

    Without deviation, as at 0 and 1 and where all images have one probability, it is `unvaried_interval`.

    Source: K. Boyd, K. H. Eng, C. D. Page, Area under the precision-recall curve: point estimates and confidence
    intervals, 2013, section 3.
    """
    if value in (0, 1) or deviation < RESIDUE:
        return unvaried_interval(value, total)
    half = float(norm.ppf(0.975)) * deviation / (value * (1 - value))
    low, high = expit(logit(value) + np.array([-half, half]))
    return float(low), float(high)


def subtract(first: Estimate, second: Estimate) -> Estimate:
    """Subtract two independent estimates, with the interval that follows from theirs.

    Source: G. Y. Zou, A. Donner, Construction of confidence limits about effect measures: a general approach, 2008,
    equation 1 (MOVER); of two of Wilson's intervals it makes Newcombe's (1998, method 10).
    """
    difference = first.value - second.value
    low = difference - hypot(first.value - first.low, second.high - second.value)
    high = difference + hypot(first.high - first.value, second.value - second.low)
    return Estimate(*zero_residue(np.array([difference, low, high])).tolist())
