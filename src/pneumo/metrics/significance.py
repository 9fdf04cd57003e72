"""Confidence intervals of the AUROC and paired tests of classifiers on the same test images."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import norm, rankdata

from pneumo.metrics.clusters import Clusters, Residuals, auroc_variance, auroc_widening, residuals, student_factor
from pneumo.metrics.intervals import (
    ROUNDING_ERROR,
    Array,
    Interval,
    logit_interval,
    zero_rounding_errors,
    zero_variance_difference,
)

Counts = npt.NDArray[np.int64]
SIGNIFICANCE_LEVEL = 0.05  # of p-values after the Holm correction
TOP = "top"  # replaces letters if more than 26 are required
MIN_P = float(np.finfo(np.float64).tiny)  # so that no p-value is 0


class Difference(NamedTuple):
    """A metric's difference, first classifier minus second, with 95 % confidence interval and two-sided p-value."""

    value: float
    low: float
    high: float
    p: float


class Placements(NamedTuple):
    """Placement values: the contribution of each image to an AUROC."""

    positive: Array  # fraction of negative images ranked below each positive image, (P,); ties count one half
    negative: Array  # fraction of positive images ranked above each negative image, (N,)
    positive_clusters: Clusters  # clusters of the positive images, (P,)
    negative_clusters: Clusters  # clusters of the negative images, (N,)

    @property
    def residuals(self) -> tuple[Residuals, Residuals]:
        """Residuals of positive and of negative images."""
        return residuals(self.positive, self.positive_clusters), residuals(self.negative, self.negative_clusters)


def placements(score: Array, positive: npt.NDArray[np.bool_], clusters: Clusters | None = None) -> Placements:
    """Compute placements, whose mean is the AUROC, from scores (n,) and true classes (n,), in O(n log n).

    `clusters`, (n,), may be None: then each image is one cluster.

    Source: X. Sun, W. Xu, Fast Implementation of DeLong's Algorithm for Comparing the Areas Under Correlated Receiver
    Operating Characteristic Curves, 2014.
    """
    ranks, clusters = rankdata(score), np.arange(len(score)) if clusters is None else clusters
    above, below = score[positive], score[~positive]
    return Placements(
        (ranks[positive] - rankdata(above)) / len(below),
        1 - (ranks[~positive] - rankdata(below)) / len(above),
        clusters[positive],
        clusters[~positive],
    )


def delong_interval(placed: Placements) -> Interval:
    """Compute the 95 % confidence interval of an AUROC, or of a mean over seeds, by DeLong on the logit scale.

    With clusters, the standard deviation is Obuchowski's. Both are widened for few images; see `auroc_widening`. With a
    single patient in a class, the variance is unknown and the interval is the whole range.
    """
    parts = placed.residuals
    units = min(len(part.sums) for part in parts)
    if units < 2:
        return 0.0, 1.0
    return logit_interval(float(placed.positive.mean()), _deviation(*parts) * auroc_widening([parts]), units)


def delong(first: Placements, second: Placements) -> Difference:
    """Compare two AUROCs on the same images by DeLong's interval and test, or Obuchowski's with clusters.

    If all placements change by the same amount, the standard deviation is 0. Then the p-value is that of the sign test
    over the patients of the smaller class, which all change in the same direction.

    Sources: E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, Comparing the areas under two or more correlated receiver
    operating characteristic curves: a nonparametric approach, 1988; N. A. Obuchowski, Nonparametric Analysis of
    Clustered ROC Curve Data, 1997.
    """
    change = first._replace(
        positive=zero_rounding_errors(first.positive - second.positive),
        negative=zero_rounding_errors(first.negative - second.negative),
    )
    value, parts = float(change.positive.mean()), change.residuals
    units = min(len(part.sums) for part in parts)
    if units < 2:
        return Difference(value, -1.0, 1.0, 1.0)
    deviation = _deviation(*parts)
    if deviation < ROUNDING_ERROR:
        return Difference(
            value, *zero_variance_difference(value, units), max(0.5 ** (units - 1), MIN_P) if value else 1.0
        )
    half = float(norm.ppf(0.975)) * deviation
    p = float(2 * norm.sf(abs(value) / deviation))
    return Difference(value, max(-1.0, value - half), min(1.0, value + half), max(p, MIN_P))


def permutation_test(first: Counts, second: Counts, seeds: tuple[int, int], clusters: Clusters | None = None) -> float:
    """Compute the exact p-value of equal mean accuracy by a paired permutation test over images or patients.

    Under the null hypothesis, the results of both configurations can be swapped within each of the C clusters. The
    p-value is the fraction of the 2^C swaps with a difference at least as large. With one seed and one image per
    patient, this is McNemar's exact test (1947).

    Args:
        first: Number of the first configuration's seeds that predict each image correctly, (N,).
        second: The same for the second configuration.
        seeds: Number of seeds of each configuration.
        clusters: Index of each image's patient, (N,); None: each image is one cluster.
    """
    gain = first * seeds[1] - second * seeds[0]
    if clusters is not None:
        gain = np.rint(np.bincount(clusters, gain)).astype(np.int64)
    total = abs(int(gain.sum()))
    if total == 0:
        return 1.0
    step = int(np.gcd.reduce(gain))
    sizes, counts = np.unique(np.abs(gain[gain != 0]) // step, return_counts=True)
    return float(np.clip(2 * permutation_tail(sizes, counts, total // step), MIN_P, 1.0))


def permutation_tail(sizes: Counts, counts: Counts, total: int) -> float:
    """Compute the probability that a sum of gains with random signs is at least `total`, which is positive.

    The distribution of the sum is exponentially tilted to center it on `total`, then computed by one Fourier transform
    of its characteristic function. So even small probabilities have a relative error below 1e-9. The tail with a
    probability below 1e-20 (Hoeffding's bound) is omitted. The number of points is thus at most 10 times the root of
    the sum of squared gains.

    Source: J. Siegmund, Importance Sampling in the Monte Carlo Study of Sequential Tests, 1976, for the tilt.

    Args:
        sizes: Distinct positive gains, (K,).
        counts: Number of occurrences of each gain, (K,).
        total: Value of the sum; even if and only if the sum of all gains is even.
    """
    largest = int(sizes @ counts)
    least = (largest + total) // 2  # the sum of the gains with a positive sign
    points = min(largest + 1, int(10 * np.sqrt(sizes**2 @ counts)) + 2)

    def excess(tilt: float) -> float:
        return float(counts @ (sizes * expit(tilt * sizes))) - least

    steepest = 40.0 / int(sizes[0])
    tilt = float(brentq(excess, 0, steepest)) if excess(steepest) > 0 else steepest
    roots = np.exp(2j * np.pi * np.arange(points) / points)
    spectrum = roots ** (-least % points)
    for size, count in zip(sizes, counts, strict=True):
        probability = expit(tilt * size)
        spectrum *= (1 - probability + probability * roots**size) ** count
    tilted = np.fft.fft(spectrum).real / points  # sums from `least` on, then, cyclically, those below it
    above = np.arange(min((points + 1) // 2, largest - least + 1))
    scale = float(counts @ (np.logaddexp(0, tilt * sizes) - np.log(2))) - tilt * least
    return float(tilted[above] @ np.exp(-tilt * above) * np.exp(scale))


def holm(values: Sequence[float]) -> list[float]:
    """Apply the Holm correction to p-values, which controls the family-wise error rate.

    Source: S. Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
    """
    order = np.argsort(values, kind="stable")
    scaled = np.asarray(values, float)[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return [float(value) for value in adjusted]


def letters(different: npt.NDArray[np.bool_]) -> list[str]:
    """Assign letters to classifiers: two share a letter if and only if they do not differ significantly.

    If this requires more than 26 letters, classifiers that do not differ from the first are marked `TOP` instead. The
    others get an empty string.

    Source: H.-P. Piepho, An Algorithm for a Letter-Based Representation of All-Pairwise Comparisons, 2004: insert and
    absorb.

    Args:
        different: True for pairs that differ significantly, (n, n), symmetric. The first row gets the first letter.
    """
    names = string.ascii_lowercase
    groups = [frozenset(range(len(different)))]
    for first, second in np.argwhere(np.triu(different)).tolist():
        unchanged = [group for group in groups if not {first, second} <= group]
        parts = [group - {each} for group in groups if {first, second} <= group for each in (first, second)]
        groups = unchanged + [part for part in parts if not any(part < other for other in unchanged)]
        if len(groups) > 4 * len(names):  # absorption may still remove groups, but hardly three quarters of them
            break
    if len(groups) > len(names):
        return ["" if differs else TOP for differs in different[0]]
    ordered = sorted(groups, key=sorted)
    lettered = list(zip(names, ordered, strict=False))
    return ["".join(name for name, group in lettered if i in group) for i in range(len(different))]


def _deviation(positive: Residuals, negative: Residuals) -> float:
    smaller = min(positive, negative, key=lambda part: len(part.sums))
    return float(np.sqrt(auroc_variance(positive, negative))) * student_factor(smaller.images, len(smaller.sums))
