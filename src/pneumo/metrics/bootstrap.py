"""Stratified, patient-clustered bootstrap, computed over all resamples at once.

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
from pneumo.metrics.intervals import Array, Interval, zero_rounding_errors
from pneumo.metrics.predictions import Predictions

RESAMPLES = 2_000
SEED = 0
_MAX_WEIGHTS = 4_000_000  # weights in memory at a time, 32 MB
_MAX_DRAWN_IMAGES = 100_000_000  # about ten seconds of work
_MIN_DRAWS = 100


class Resamples:
    """Resamples of predictions, as a weight for each image.

    Attributes:
        predictions: Predictions for N images.
        weights: Number of times that each image occurs in each of R resamples, (R, N).
        total: Number of images in each resample, (R,).
    """

    def __init__(self, predictions: Predictions, weights: Array | None = None) -> None:
        """Initialize with weights; None: a single resample with each image once, the original sample."""
        self.predictions = predictions
        self.weights = np.ones((1, len(predictions.label))) if weights is None else weights
        self.total: Array = self.weights.sum(axis=1)

    @cached_property
    def tables(self) -> Array:
        """Confusion matrices, (R, C, C)."""
        classes = self.predictions.probability.shape[1]
        cell = self.predictions.label * classes + self.predictions.predicted
        counts: Array = self.weights @ (cell[:, None] == np.arange(classes**2))
        return counts.reshape(-1, classes, classes)

    @cached_property
    def ranked(self) -> list[tuple[Array, Array]]:
        """One-vs-rest counts of positives and negatives at each distinct score, (R, scores), highest score first."""
        return [self._rank(binary) for binary in self.predictions.one_vs_rest.values()]

    @cached_property
    def bin_residuals(self) -> Array:
        """Mean of `pneumo.metrics.calibration.bin_residuals` over the images, (R, bins)."""
        inside = bin_residuals(self.predictions.confidence, self.predictions.confidence_target)
        mean: Array = self.weights @ inside / self.total[:, None]
        return mean

    def _rank(self, binary: Predictions) -> tuple[Array, Array]:
        score, weights = binary.score[binary.order], self.weights[:, binary.order]
        ties = np.flatnonzero(np.diff(score, prepend=np.inf))  # start index of each distinct score
        positive = weights * binary.positive[binary.order]
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
    """Compute a statistic on bootstrap draws of patients, stratified by the classes of their images.

    Draws depend only on the classes and clusters and their order, so draws for two runs on the same images are paired.
    Large samples get fewer draws; see `count_draws`.

    Args:
        statistic: Function of the number of times that each image was drawn, (R, N), that returns (R, ...).
        label: Class of each image, (N,).
        count: Largest number of draws.
        seed: Seed of the random draws.
        clusters: Index of each image's patient, (N,); None: images are drawn independently.
    """
    generator = np.random.default_rng(seed)
    index = np.arange(len(label))
    patient = index if clusters is None else clusters
    unclustered = np.array_equal(patient, index)
    strata, size = stratify(label, patient), int(patient.max()) + 1
    count, block = count_draws(len(label), count), max(1, _MAX_WEIGHTS // len(label))
    results = []
    for start in range(0, count, block):
        rows = min(block, count - start)
        drawn = [stratum[generator.integers(0, len(stratum), (rows, len(stratum)))] for stratum in strata]
        flat = np.hstack(drawn) + np.arange(rows)[:, None] * size
        weights = np.bincount(flat.ravel(), minlength=rows * size).reshape(rows, size).astype(np.float64)
        results.append(statistic(weights if unclustered else weights[:, patient]))
    return np.concatenate(results)


def count_draws(images: int, count: int = RESAMPLES) -> int:
    """Compute the number of draws: at most `count`; above 50,000 images fewer, but at least 100.

    For a normal distribution, interval ends have a standard error of 7 % of the width with 100 draws, 1.5 % with 2,000.
    """
    return min(count, max(_MIN_DRAWS, _MAX_DRAWN_IMAGES // images))


def percentiles(draws: Array) -> Interval:
    """Compute the 2.5 % and 97.5 % percentiles of draws, (R,)."""
    low, high = zero_rounding_errors(np.quantile(draws, (0.025, 0.975)))
    return float(low), float(high)
