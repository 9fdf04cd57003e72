"""Whether two classifiers differ on the same test images, and which of many cannot be told apart."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import binom, norm, rankdata

from pneumo.evaluation.intervals import Interval, logit_interval

Array = npt.NDArray[np.float64]

LEVEL = 0.05


class Difference(NamedTuple):
    """The first classifier's number less the second's.

    Attributes:
        value: The difference.
        low: Of its 95 % interval.
        high: Likewise.
        p: Of a difference as large or larger, to either side, if there were none.
    """

    value: float
    low: float
    high: float
    p: float


class Placements(NamedTuple):
    """What each image adds to an AUROC.

    Attributes:
        positive: The share of negative images that rank below each positive one, ties by half, (P,).
        negative: The share of positive images that rank above each negative one, (N,).
    """

    positive: Array
    negative: Array


def placements(probability: Array, positive: npt.NDArray[np.bool_]) -> Placements:
    """Give the placements of images, whose mean is the AUROC, in O(n log n).

    Those of several seeds may be averaged: their mean belongs to the mean of the AUROCs.

    Source: X. Sun, W. Xu, Fast Implementation of DeLong's Algorithm for Comparing the Areas Under Correlated Receiver
    Operating Characteristic Curves, 2014.

    Args:
        probability: Of the positive class, (n,).
        positive: Whether it is of that class, (n,), some of each.
    """
    ranks = rankdata(probability)
    above, below = probability[positive], probability[~positive]
    return Placements(
        (ranks[positive] - rankdata(above)) / len(below), 1 - (ranks[~positive] - rankdata(below)) / len(above)
    )


def auroc_interval(found: Placements) -> Interval:
    """Give the 95 % interval of an AUROC, or of a mean over seeds: DeLong's deviation, on the logit scale.

    A single image of a class does not tell how much images vary: then nothing is known.
    """
    if min(map(len, found)) < 2:
        return 0.0, 1.0
    deviation = float(np.sqrt(sum(part.var(ddof=1) / len(part) for part in found)))
    return logit_interval(float(found.positive.mean()), deviation, min(map(len, found)))


def delong(first: Placements, second: Placements) -> Difference:
    """Compare two AUROCs on the same images: DeLong's interval and test.

    Source: E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, Comparing the areas under two or more correlated receiver
    operating characteristic curves: a nonparametric approach, 1988.
    """
    parts = [one - two for one, two in zip(first, second, strict=True)]
    value = float(parts[0].mean())
    if min(map(len, parts)) < 2:
        return Difference(value, -1.0, 1.0, 1.0)
    deviation = float(np.sqrt(sum(part.var(ddof=1) / len(part) for part in parts)))
    half = float(norm.ppf(0.975)) * deviation
    p = float(2 * norm.sf(abs(value) / deviation)) if deviation else float(value == 0)
    return Difference(value, max(-1.0, value - half), min(1.0, value + half), p)


def swap_test(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64], seeds: tuple[int, int]) -> float:
    """Give the exact p that two configurations with several seeds are right equally often in the mean.

    Were they alike, each image's two numbers could as well stand in each other's place: p is the share of all 2^N ways
    to swap them that give a difference as large. With one seed each this is McNemar's exact test (1947).

    Args:
        first: How many of the first's seeds are right on each image, (N,).
        second: Likewise.
        seeds: How many there are of either.
    """
    gain = first * seeds[1] - second * seeds[0]
    chance = np.ones(1)  # of each sum of gains, all multiples of 1 from -reach to reach
    for size, count in zip(*np.unique(np.abs(gain[gain != 0]), return_counts=True), strict=True):
        steps = np.zeros(2 * int(size * count) + 1)
        steps[:: 2 * int(size)] = binom.pmf(np.arange(count + 1), count, 0.5)
        chance = np.convolve(chance, steps)
    reach = len(chance) // 2
    sums = np.abs(np.arange(-reach, reach + 1))
    return float(min(1.0, chance[sums >= abs(int(gain.sum()))].sum()))


def holm(values: Sequence[float]) -> list[float]:
    """Give p-values that stay below a level together only where all of them hold with it.

    Source: S. Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
    """
    order = np.argsort(values, kind="stable")
    scaled = np.asarray(values, float)[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return [float(value) for value in adjusted]


def letters(different: npt.NDArray[np.bool_]) -> list[str]:
    """Give each of several things letters: two share one if, and only if, they cannot be told apart.

    Source: H.-P. Piepho, An Algorithm for a Letter-Based Representation of All-Pairwise Comparisons, 2004: insert and
    absorb.

    Args:
        different: Which pairs can be told apart, (n, n), symmetric. The first thing gets the first letter.
    """
    groups = [frozenset(range(len(different)))]
    for one, two in zip(*np.nonzero(np.triu(different)), strict=True):
        split = {part for group in groups for part in _apart(group, int(one), int(two))}
        groups = [group for group in split if not any(group < other for other in split)]
    ordered = sorted(groups, key=sorted)
    names = [string.ascii_letters[i] if i < len(string.ascii_letters) else f"({i + 1})" for i in range(len(ordered))]
    return [
        "".join(name for name, group in zip(names, ordered, strict=True) if i in group) for i in range(len(different))
    ]


def _apart(group: frozenset[int], one: int, two: int) -> Iterator[frozenset[int]]:
    """Divide a group whose members one and two can be told apart."""
    if {one, two} <= group:
        yield group - {one}
        yield group - {two}
    else:
        yield group
