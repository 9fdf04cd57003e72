"""Expected calibration error with its confidence interval, and the reliability curve."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from pneumo.metrics.clusters import Clusters, clustered_wilson
from pneumo.metrics.intervals import ROUNDING_ERROR, Array, Interval, zero_variance_interval
from pneumo.metrics.predictions import Predictions

BINS = 15  # of equal width, as in Guo et al., On Calibration of Modern Neural Networks, 2017
_PARTS = 4  # parts of a bin; images in one part have nearly the same probability
_EDGES = np.linspace(0, 1, BINS * _PARTS + 1, dtype=np.float32)[:-1]


class Bin(NamedTuple):
    """A bin of the reliability curve: images with similar probabilities."""

    probability: float  # mean probability
    fraction: float  # fraction of positive images
    low: float  # lower end of its 95 % confidence interval (Wilson, with the effective sample size)
    high: float  # upper end of this interval


def bin_index(probability: Array) -> npt.NDArray[np.int64]:
    """Return the bin index of each probability; bins include their lower edge, and the last one includes 1.

    Edges and probabilities are compared in single precision, in which networks predict.
    """
    return _part_index(probability) // _PARTS


def bin_residuals(probability: Array, positive: npt.NDArray[np.bool_]) -> Array:
    """Compute each image's contribution to the gap between probability and outcome in its bin, (N, bins)."""
    residuals = np.zeros((len(probability), BINS))
    residuals[np.arange(len(probability)), bin_index(probability)] = probability - positive
    return residuals


def calibration_error_interval(
    confidence: Array, positive: npt.NDArray[np.bool_], draws: Array, clusters: Clusters | None = None
) -> Interval:
    """Compute the 95 % confidence interval of an ECE, whose estimate is biased upwards by sampling noise.

    The lower end is 0 unless the ECE exceeds the 97.5 % quantile for labels drawn from the probabilities. Otherwise the
    97.5 % quantile of the bias is subtracted. In each bootstrap draw, the bias is the increase of the ECE by noise,
    after the gaps were shrunk by their variance. The upper end is 1.96 standard deviations above the estimate. It is
    conservative, since no bias is subtracted. If all draws are equal, the interval is `zero_variance_interval`.

    Source: J. Bröcker, L. A. Smith, Increasing the Reliability of Reliability Diagrams, 2007, for the resampling test;
    B. Efron, C. Morris, Stein's Estimation Rule and Its Competitors, 1973, section 2, for the shrunk gaps.

    Args:
        confidence: Probability of the positive class; with three or more classes, of the predicted class, (N,).
        positive: True for images of this class, (N,).
        draws: Bootstrap draws of the mean of `bin_residuals` over the images, (R, bins).
        clusters: Index of each image's patient, (N,); None: each image is one cluster.
    """
    gap = bin_residuals(confidence, positive).mean(axis=0)
    noise, ece = draws - gap, float(np.abs(gap).sum())
    shrunk = gap * np.maximum(0, 1 - noise.var(axis=0) / np.maximum(gap**2, np.finfo(np.float64).tiny))
    bias = np.abs(shrunk + noise).sum(axis=1) - np.abs(shrunk).sum()
    low = ece - float(np.quantile(bias, 0.975))
    high = ece + float(norm.ppf(0.975) * np.abs(draws).sum(axis=1).std(ddof=1))
    if high - ece < ROUNDING_ERROR:
        low, high = zero_variance_interval(ece, len(positive) if clusters is None else len(np.unique(clusters)))
    if ece <= np.quantile(chance_errors(confidence, len(draws), clusters), 0.975):
        low = 0.0
    return min(max(0.0, low), ece), min(1.0, high)


def chance_errors(confidence: Array, count: int, clusters: Clusters | None = None) -> Array:
    """Draw labels from the probabilities and compute the ECE of each draw, (count,).

    The results are distributed like the ECE of a calibrated network. Independent images within a quarter of a bin are
    drawn together, with their mean probability. Images of one patient share a random number, which maximizes the
    correlation of their labels.

    Source: J. Bröcker, L. A. Smith, Increasing the Reliability of Reliability Diagrams, 2007 (consistency resampling).
    """
    generator = np.random.default_rng(0)
    if clusters is not None and len(np.unique(clusters)) < len(confidence):
        bins = bin_index(confidence)
        expected = np.bincount(bins, confidence, BINS)
        uniform = (generator.random(int(clusters.max()) + 1)[clusters] for _ in range(count))
        gaps = (expected - np.bincount(bins, number < confidence, BINS) for number in uniform)
        return np.array([np.abs(gap).sum() / len(confidence) for gap in gaps])
    parts, index, images = np.unique(_part_index(confidence), return_inverse=True, return_counts=True)
    expected = np.bincount(index, confidence)
    drawn = generator.binomial(images, np.clip(expected / images, 0, 1), (count, len(images)))
    gap = (expected - drawn) @ (parts[:, None] // _PARTS == np.arange(BINS))
    errors: Array = np.abs(gap).sum(axis=1) / len(confidence)
    return errors


def calibration_curve(predictions: Predictions) -> list[Bin]:
    """Compute mean probability and fraction of positive images in each non-empty bin."""
    probability, positive = predictions.positive_probability, predictions.positive
    index, clusters = bin_index(probability), predictions.clusters
    bins = []
    for number in np.unique(index):
        mask = index == number
        interval = clustered_wilson(positive[mask], clusters[mask])
        bins.append(Bin(float(probability[mask].mean()), float(positive[mask].mean()), *interval))
    return bins


def _part_index(probability: Array) -> npt.NDArray[np.int64]:
    return np.digitize(probability.astype(np.float32), _EDGES) - 1
