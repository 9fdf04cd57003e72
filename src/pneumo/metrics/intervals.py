"""Closed-form 95 % confidence intervals."""

from __future__ import annotations

from math import hypot, sqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from scipy.stats import norm

Array = npt.NDArray[np.float64]
Interval = tuple[float, float]
ROUNDING_ERROR = 1e-12  # smaller differences and standard deviations are rounding errors
_PRIOR_IMAGES = 4  # weight, in images, of the largest possible variance when a mean's variance is shrunk towards it


class Estimate(NamedTuple):
    """An estimate with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def describe(self) -> str:
        """Format value and interval with three decimals, such as `0.912 (0.884 to 0.935)`."""
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def wilson(hits: float, total: float) -> Interval:
    """Compute the Wilson score interval of a proportion; `hits` and `total` may be fractional effective counts.

    Source: L. D. Brown, T. T. Cai, A. DasGupta, Interval Estimation for a Binomial Proportion, 2001, equation 4.
    """
    proportion, square = hits / total, float(norm.ppf(0.975)) ** 2
    scale = 2 * (total + square)
    middle = (2 * total * proportion + square) / scale
    half = float(norm.ppf(0.975)) / scale * sqrt(4 * total * proportion * (1 - proportion) + square)
    return (middle - half if hits > 0 else 0.0), (middle + half if hits < total else 1.0)


def zero_variance_interval(value: float, total: int, top: float = 1.0) -> Interval:
    """Compute the interval of a mean between 0 and `top` if all `total` images have the same value.

    The Wilson interval of `total` in `total` bounds the fraction of unseen images that may differ. At the lower end,
    these images have the value 0, at the upper end the value `top`.
    """
    equal = wilson(total, total)[0]
    return value * equal, value + (top - value) * (1 - equal)


def zero_variance_difference(value: float, total: int, bound: float = 1.0) -> Interval:
    """Compute the interval of a difference in [-bound, bound] that is equal in all resamples of `total` images."""
    low, high = zero_variance_interval(value + bound, total, 2 * bound)
    return low - bound, high - bound


def zero_rounding_errors(values: Array) -> Array:
    """Replace values that differ from 0 only by rounding with 0."""
    return np.where(np.abs(values) < ROUNDING_ERROR, 0.0, values)


def shrink_variance(variance: float, expected: float, units: int, weight: int) -> float:
    """Shrink a variance, estimated from `units` images or patients, towards its expected value."""
    return ((units - 1) * variance + weight * expected) / (units - 1 + weight)


def mean_interval(value: float, draws: Array, total: int, top: float = 1.0) -> Interval:
    """Compute `bounded_interval` from bootstrap draws of a mean, (R,)."""
    variance = 0.0 if np.ptp(draws) < ROUNDING_ERROR else draws.var(ddof=1)
    return bounded_interval(value, variance, total, top)


def bounded_interval(value: float, variance: float, total: int, top: float = 1.0) -> Interval:
    """Compute the interval of a mean between 0 and `top` on the logit scale from its variance.

    A few images with large errors dominate the mean, and a small sample may contain none of them. The variance is
    therefore shrunk towards its maximum, reached if each image has the value 0 or `top`. If the variance is 0, the
    interval is `zero_variance_interval`. `total` is the number of patients, `top` the largest value of an image.
    """
    if variance == 0:
        return zero_variance_interval(value, total, top)
    fraction = value / top
    shrunk = shrink_variance(variance / top**2, fraction * (1 - fraction) / total, total, _PRIOR_IMAGES)
    low, high = logit_interval(fraction, sqrt(shrunk), total)
    return low * top, high * top


def logit_interval(value: float, deviation: float, total: int) -> Interval:
    """Compute the interval of an area under a curve on the logit scale, so that it stays between 0 and 1.

    It is `zero_variance_interval` if the value is 0 or 1 or the deviation is 0, as with equal scores for all images.

    Source: K. Boyd, K. H. Eng, C. D. Page, Area under the precision-recall curve: point estimates and confidence
    intervals, 2013, section 3.
    """
    if value in (0, 1) or deviation < ROUNDING_ERROR:
        return zero_variance_interval(value, total)
    half = float(norm.ppf(0.975)) * deviation / (value * (1 - value))
    low, high = expit(logit(value) + np.array([-half, half]))
    return float(low), float(high)


def subtract(first: Estimate, second: Estimate, *, correlation: float = 0.0) -> Estimate:
    """Compute the difference of two estimates with this correlation and its confidence interval.

    Source: G. Y. Zou, A. Donner, Construction of confidence limits about effect measures: a general approach, 2008,
    equation 1 (MOVER); for two independent Wilson intervals it equals Newcombe's (1998, method 10).
    """

    def combine(one: float, other: float) -> float:
        return hypot(one - correlation * other, sqrt(1 - correlation**2) * other)

    difference = first.value - second.value
    low = difference - combine(first.value - first.low, second.high - second.value)
    high = difference + combine(first.high - first.value, second.value - second.low)
    return Estimate(*zero_rounding_errors(np.array([difference, low, high])).tolist())
