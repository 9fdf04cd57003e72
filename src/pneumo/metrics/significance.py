"""The AUROC's interval, and the significance of differences between classifiers on the same test images."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import norm, rankdata

from pneumo.metrics.clusters import Clusters, Residuals, area_variance, area_widening, residuals, student_factor
from pneumo.metrics.intervals import RESIDUE, Array, Interval, logit_interval, unvaried_difference, zero_residue

Counts = npt.NDArray[np.int64]
LEVEL = 0.05
TOP = "top"  # stands for letters where there are too many
SMALLEST = float(np.finfo(np.float64).tiny)  # no p is 0


class Difference(NamedTuple):
    """The first classifier's metric less the second's, with 95 % interval and two-sided p-value."""

    value: float
    low: float
    high: float
    p: float


class Placements(NamedTuple):
    """What each image adds to an AUROC."""

    positive: Array  # the fraction of negative images that rank below each positive one, ties by half, (P,)
    negative: Array  # the fraction of positive images that rank above each negative one, (N,)
    of_positive: Clusters  # clusters of the positive images, (P,)
    of_negative: Clusters  # clusters of the negative images, (N,)

    @property
    def residuals(self) -> tuple[Residuals, Residuals]:
        """Deviations from the mean, of positive and of negative images."""
        return residuals(self.positive, self.of_positive), residuals(self.negative, self.of_negative)


def placements(score: Array, positive: npt.NDArray[np.bool_], clusters: Clusters | None = None) -> Placements:
    """Compute the placements of images, whose mean is the AUROC, in O(n log n), from scores (n,) and classes (n,).

    Without `clusters`, (n,), every image is a cluster of its own.

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


def delong_interval(found: Placements) -> Interval:
    """Compute the 95 % interval of an AUROC, or of a mean over seeds: DeLong's deviation, on the logit scale.

    Of clustered images it is Obuchowski's deviation. Both are widened for few images: `area_widening`. With a single
    patient of a class the variance is unknown, and the interval is the whole range.
    """
    parts = found.residuals
    units = min(len(part.sums) for part in parts)
    if units < 2:
        return 0.0, 1.0
    return logit_interval(float(found.positive.mean()), _deviation(*parts) * area_widening([parts]), units)


def delong(first: Placements, second: Placements) -> Difference:
    """Compare two AUROCs on the same images: DeLong's interval and test, of clustered images Obuchowski's.

    Where every image shifts alike there is no deviation to divide by. Then p is that of the sign test over the patients
    of the smaller class, all of which shift to one side.

    Sources: E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, Comparing the areas under two or more correlated receiver
    operating characteristic curves: a nonparametric approach, 1988; N. A. Obuchowski, Nonparametric Analysis of
    Clustered ROC Curve Data, 1997.
    """
    change = first._replace(
        positive=zero_residue(first.positive - second.positive), negative=zero_residue(first.negative - second.negative)
    )
    value, parts = float(change.positive.mean()), change.residuals
    units = min(len(part.sums) for part in parts)
    if units < 2:
        return Difference(value, -1.0, 1.0, 1.0)
    deviation = _deviation(*parts)
    if deviation < RESIDUE:
        return Difference(
            value, *unvaried_difference(value, units), max(0.5 ** (units - 1), SMALLEST) if value else 1.0
        )
    half = float(norm.ppf(0.975)) * deviation
    p = float(2 * norm.sf(abs(value) / deviation))
    return Difference(value, max(-1.0, value - half), min(1.0, value + half), max(p, SMALLEST))


def swap_test(first: Counts, second: Counts, seeds: tuple[int, int], clusters: Clusters | None = None) -> float:
    """Compute the exact p that two configurations with several seeds are right equally often in the mean.

    Were they alike, each patient's two sums could as well stand in each other's place: p is the fraction of all 2^C
    ways to swap them that give a difference as large. With one seed and one image a patient this is McNemar's exact
    test (1947).

    Args:
        first: Number of the first's seeds that are right on each image, (N,).
        second: The same of the second.
        seeds: Number of seeds of either.
        clusters: (N,), whose images are swapped together; None: each image on its own.
    """
    gain = first * seeds[1] - second * seeds[0]
    if clusters is not None:
        gain = np.rint(np.bincount(clusters, gain)).astype(np.int64)
    total = abs(int(gain.sum()))
    if total == 0:
        return 1.0
    step = int(np.gcd.reduce(gain))
    sizes, counts = np.unique(np.abs(gain[gain != 0]) // step, return_counts=True)
    return float(np.clip(2 * swap_tail(sizes, counts, total // step), SMALLEST, 1.0))


def swap_tail(sizes: Counts, counts: Counts, total: int) -> float:
    """Compute the chance that a sum of gains with random signs reaches `total`, which is above 0.

    The sum's distribution is tilted so that `total` lies in its middle, and found by one Fourier transform of its
    characteristic function: all digits of a small chance are kept, to a relative error below 1e-9. Points beyond which
    less than 1e-20 lies (Hoeffding's bound) are left out, so that there are at most 10 times as many as the root of
    the sum of squares.

    Source: J. Siegmund, Importance Sampling in the Monte Carlo Study of Sequential Tests, 1976, for the tilt.

    Args:
        sizes: Different gains, (K,), above 0.
        counts: How often each occurs, (K,).
        total: The sum, of the parity of the largest sum.
    """
    reach = int(sizes @ counts)
    least = (reach + total) // 2  # the sum of the gains with a positive sign
    points = min(reach + 1, int(10 * np.sqrt(sizes**2 @ counts)) + 2)

    def excess(tilt: float) -> float:
        return float(counts @ (sizes * expit(tilt * sizes))) - least

    steepest = 40.0 / int(sizes[0])
    tilt = float(brentq(excess, 0, steepest)) if excess(steepest) > 0 else steepest
    turn = np.exp(2j * np.pi * np.arange(points) / points)
    spectrum = turn ** (-least % points)
    for size, count in zip(sizes, counts, strict=True):
        chance = expit(tilt * size)
        spectrum *= (1 - chance + chance * turn**size) ** count
    tilted = np.fft.fft(spectrum).real / points  # of sums from `least` on; those below it follow, as the circle closes
    above = np.arange(min((points + 1) // 2, reach - least + 1))
    scale = float(counts @ (np.logaddexp(0, tilt * sizes) - np.log(2))) - tilt * least
    return float(tilted[above] @ np.exp(-tilt * above) * np.exp(scale))


def holm(values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number, so that the family-wise error rate is controlled.

    Source: S. Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
    """
    order = np.argsort(values, kind="stable")
    scaled = np.asarray(values, float)[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return [float(value) for value in adjusted]


def letters(different: npt.NDArray[np.bool_]) -> list[str]:
    """Assign letters to classifiers: two share a letter if, and only if, they do not differ significantly.

    Where this takes more letters than there are from a to z, those that do not differ from the first classifier are
    marked `TOP` instead, and the others not at all.

    Source: H.-P. Piepho, An Algorithm for a Letter-Based Representation of All-Pairwise Comparisons, 2004: insert and
    absorb.

    Args:
        different: Which pairs differ, (n, n), symmetric. The first classifier gets the first letter.
    """
    names = string.ascii_lowercase
    groups = [frozenset(range(len(different)))]
    for one, two in np.argwhere(np.triu(different)).tolist():
        kept = [group for group in groups if not {one, two} <= group]
        parts = [group - {each} for group in groups if {one, two} <= group for each in (one, two)]
        groups = kept + [part for part in parts if not any(part < other for other in kept)]
        if len(groups) > 4 * len(names):  # fewer may remain at the end, but hardly a quarter
            break
    if len(groups) > len(names):
        return ["" if apart else TOP for apart in different[0]]
    ordered = sorted(groups, key=sorted)
    named = list(zip(names, ordered, strict=False))
    return ["".join(name for name, group in named if i in group) for i in range(len(different))]


def _deviation(positive: Residuals, negative: Residuals) -> float:
    fewest = min(positive, negative, key=lambda part: len(part.sums))
    return float(np.sqrt(area_variance(positive, negative))) * student_factor(fewest.images, len(fewest.sums))
