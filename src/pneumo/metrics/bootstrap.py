"""The stratified, patient-clustered bootstrap, computed over all resamples at once.

Source: B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 (several samples: each class is
resampled separately) and 13 (percentile intervals).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pneumo.metrics.calibration import bin_residuals
from pneumo.metrics.clusters import Clusters, stratify
from pneumo.metrics.intervals import Array, Interval, zero_residue
from pneumo.metrics.predictions import Predictions

RESAMPLES = 2_000
SEED = 0
_BLOCK = 4_000_000  # weights that are held at once, 32 MB
_WORK = 100_000_000  # images that are drawn in all, some ten seconds of work
_FEWEST = 100  # draws


class Resamples:
    """Resamples of predictions: images that count several times, or not at all.

    Attributes:
        predictions: For N images.
        weights: How often each image counts in each of R resamples, (R, N).
        total: Number of images of each resample, (R,).
    """

    def __init__(self, predictions: Predictions, weights: Array | None = None) -> None:
        """Take the weights; None: a single resample, in which each image counts once."""
        self.predictions = predictions
        self.weights = np.ones((1, len(predictions.label))) if weights is None else weights
        self.total: Array = self.weights.sum(axis=1)

    @cached_property
    def tables(self) -> Array:
        """Confusion tables, (R, C, C)."""
        classes = self.predictions.probability.shape[1]
        cell = self.predictions.label * classes + self.predictions.predicted
        counts: Array = self.weights @ (cell[:, None] == np.arange(classes**2))
        return counts.reshape(-1, classes, classes)

    @cached_property
    def ranked(self) -> list[tuple[Array, Array]]:
        """Positive and negative images at each score, the highest first, (R, ties), of each class against the rest."""
        return [self._rank(side) for side in self.predictions.against_rest.values()]

    @cached_property
    def bin_residuals(self) -> Array:
        """Mean of `pneumo.metrics.calibration.bin_residuals` over the images, (R, bins)."""
        inside = bin_residuals(self.predictions.confidence, self.predictions.confirmed)
        mean: Array = self.weights @ inside / self.total[:, None]
        return mean

    def _rank(self, side: Predictions) -> tuple[Array, Array]:
        score, weights = side.score[side.order], self.weights[:, side.order]
        ties = np.flatnonzero(np.diff(score, prepend=np.inf))  # where the next score begins
        positive = weights * side.positive[side.order]
        counts = positive, weights - positive
        if len(ties) < len(score):
            counts = np.add.reduceat(counts[0], ties, axis=1), np.add.reduceat(counts[1], ties, axis=1)
        return counts


def bootstrap(
    statistic: Callable[[Array], Array],
    label: npt.NDArray[Any],
    count: int = RESAMPLES,
    seed: int = SEED,
    clusters: Clusters | None = None,
) -> Array:
    """Draw patients with replacement among those with images of the same classes; compute a statistic of each draw.

    The same classes and clusters in the same order are drawn the same: two runs on the same images are compared in
    pairs. Many images are drawn fewer times; see `resamples`.

    Args:
        statistic: Takes how often each image was drawn, (R, N), and returns (R, ...).
        label: The images' classes, (N,).
        count: The number of draws.
        seed: Of the draws.
        clusters: Patient number of each image, (N,); None: each image is drawn on its own.
    """
    generator = np.random.default_rng(seed)
    each = np.arange(len(label))
    patient = each if clusters is None else clusters
    alone = np.array_equal(patient, each)
    strata, size = stratify(label, patient), int(patient.max()) + 1
    count, block = resamples(len(label), count), max(1, _BLOCK // len(label))
    found = []
    for start in range(0, count, block):
        rows = min(block, count - start)
        drawn = [stratum[generator.integers(0, len(stratum), (rows, len(stratum)))] for stratum in strata]
        flat = np.hstack(drawn) + np.arange(rows)[:, None] * size
        weights = np.bincount(flat.ravel(), minlength=rows * size).reshape(rows, size).astype(np.float64)
        found.append(statistic(weights if alone else weights[:, patient]))
    return np.concatenate(found)


def resamples(images: int, count: int = RESAMPLES) -> int:
    """Compute the number of draws of so many images: at most `count`, and above 50,000 images fewer, at least 100.

    The ends of a normal distribution's interval have a standard error of 7 % of its width then, else of 1.5 %.
    """
    return min(count, max(_FEWEST, _WORK // images))


def percentiles(draws: Array) -> Interval:
    """Compute the middle 95 % of draws, (R,)."""
    low, high = zero_residue(np.quantile(draws, (0.025, 0.975)))
    return float(low), float(high)
