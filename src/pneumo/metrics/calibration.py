"""Calibration: the expected calibration error with its interval, and the reliability curve."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from pneumo.metrics.clusters import Clusters, clustered_wilson
from pneumo.metrics.intervals import RESIDUE, Array, Interval, unvaried_interval
from pneumo.metrics.predictions import Predictions

BINS = 15  # of equal width, as in Guo et al., On Calibration of Modern Neural Networks, 2017
_PARTS = 4  # of a bin, whose images have nearly the same probability
_EDGES = np.linspace(0, 1, BINS * _PARTS + 1, dtype=np.float32)[:-1]


class Bin(NamedTuple):
    """Images whose probabilities lie close to each other."""

    probability: float  # mean of their probabilities
    share: float  # fraction of them that is positive
    low: float  # lower end of its 95 % interval (Wilson; of patients with several images, their effective number)
    high: float  # upper end


def bin_of(probability: Array) -> npt.NDArray[np.int64]:
    """Return the bin of each probability, from 0: lower edges belong to their bins, and 1 to the last bin.

    Edges and probabilities are compared in single precision, in which networks predict.
    """
    return _part_of(probability) // _PARTS


def bin_residuals(probability: Array, right: npt.NDArray[np.bool_]) -> Array:
    """Compute what each image adds to the gap of its bin between mean probability and share, (N, bins)."""
    inside = np.zeros((len(probability), BINS))
    inside[np.arange(len(probability)), bin_of(probability)] = probability - right
    return inside


def calibration_error_interval(
    confidence: Array, right: npt.NDArray[np.bool_], draws: Array, clusters: Clusters | None = None
) -> Interval:
    """Compute the 95 % interval of an ECE, which chance makes too large: it leaves gaps in all bins.

    The lower end is 0 where labels drawn from the probabilities themselves give as large an ECE in 2.5 % of draws. Else
    it subtracts what chance adds, in 97.5 % of bootstrap draws, to gaps shrunk by their variance. The upper end is 1.96
    deviations above and subtracts nothing, so it is rather too high. Where no draw differs, it is `unvaried_interval`.

    Source: J. Bröcker, L. A. Smith, Increasing the Reliability of Reliability Diagrams, 2007, for the test by chance;
    B. Efron, C. Morris, Stein's Estimation Rule and Its Competitors, 1973, section 2, for the shrunk gaps.

    Args:
        confidence: Of two classes the probability of the positive one, of more that of the predicted class, (N,).
        right: Whether the image is of that class, (N,).
        draws: Mean over the images of `bin_residuals` in bootstrap draws, (R, bins).
        clusters: Cluster of each image, (N,).
    """
    gap = bin_residuals(confidence, right).mean(axis=0)
    noise, ece = draws - gap, float(np.abs(gap).sum())
    smaller = gap * np.maximum(0, 1 - noise.var(axis=0) / np.maximum(gap**2, np.finfo(np.float64).tiny))
    added = np.abs(smaller + noise).sum(axis=1) - np.abs(smaller).sum()
    low = ece - float(np.quantile(added, 0.975))
    high = ece + float(norm.ppf(0.975) * np.abs(draws).sum(axis=1).std(ddof=1))
    if high - ece < RESIDUE:
        low, high = unvaried_interval(ece, len(right) if clusters is None else len(np.unique(clusters)))
    if ece <= np.quantile(chance_errors(confidence, len(draws), clusters), 0.975):
        low = 0.0
    return min(max(0.0, low), ece), min(1.0, high)


def chance_errors(confidence: Array, count: int, clusters: Clusters | None = None) -> Array:
    """Draw labels from the probabilities and compute the ECE of each draw, (count,): that of calibrated networks.

    Independent images within a quarter of a bin are drawn together, with their mean probability. Images of one patient
    share a random number, which makes their labels as much alike as their probabilities allow.

    Source: J. Bröcker, L. A. Smith, Increasing the Reliability of Reliability Diagrams, 2007 (consistency resampling).
    """
    generator = np.random.default_rng(0)
    if clusters is not None and len(np.unique(clusters)) < len(confidence):
        bins = bin_of(confidence)
        known = np.bincount(bins, confidence, BINS)
        shared = (generator.random(int(clusters.max()) + 1)[clusters] for _ in range(count))
        gaps_of_draws = (known - np.bincount(bins, number < confidence, BINS) for number in shared)
        return np.array([np.abs(gap).sum() / len(confidence) for gap in gaps_of_draws])
    parts, place, images = np.unique(_part_of(confidence), return_inverse=True, return_counts=True)
    expected = np.bincount(place, confidence)
    drawn = generator.binomial(images, np.clip(expected / images, 0, 1), (count, len(images)))
    gap = (expected - drawn) @ (parts[:, None] // _PARTS == np.arange(BINS))
    errors: Array = np.abs(gap).sum(axis=1) / len(confidence)
    return errors


def calibration_curve(predictions: Predictions) -> list[Bin]:
    """Compare mean probability and share of positives in each bin that has images."""
    probability, positive = predictions.positive_probability, predictions.positive
    place, clusters = bin_of(probability), predictions.clusters
    found = []
    for number in np.unique(place):
        here = place == number
        interval = clustered_wilson(positive[here], clusters[here])
        found.append(Bin(float(probability[here].mean()), float(positive[here].mean()), *interval))
    return found


def _part_of(probability: Array) -> npt.NDArray[np.int64]:
    return np.digitize(probability.astype(np.float32), _EDGES) - 1
