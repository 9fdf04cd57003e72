"""Statistics of clustered images: images of one patient are not independent.

Clusters are numbered from 0. With one image per patient, every result equals that for independent images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, t

from pneumo.metrics.intervals import ROUNDING_ERROR, Array, Interval, logit_interval, shrink_variance, wilson

Clusters = npt.NDArray[np.int64]
_AUROC_WEIGHT, _PRECISION_WEIGHT = 2, 3  # weights, in patients, of the expected variance of placements


class Residuals(NamedTuple):
    """Deviations of images from their mean, summed within each cluster."""

    sums: Array  # sum within each non-empty cluster, (C,)
    clusters: Clusters  # numbers of these clusters, (C,), ascending
    images: int  # number of images
    mean: float  # mean over the images; for placements, the AUROC

    @property
    def variance(self) -> float:
        """Variance of the mean over images, as a ratio of cluster sums."""
        count = len(self.sums)
        return float((self.sums**2).sum() / (count - 1) * (count / self.images) / self.images)

    def added_variance(self, weight: int) -> float:
        """Compute the increase of the variance of mean placements by shrinkage.

        A high AUROC depends on rare low placements, and a small class may contain none of them. The expected variance
        is that of independent images with exponential scores, for the class where it is larger.

        Source: J. A. Hanley, B. J. McNeil, The Meaning and Use of the Area under a Receiver Operating Characteristic
        (ROC) Curve, 1982, equation 2: Q2 less the squared area.
        """
        area = max(self.mean, 1 - self.mean)
        expected = area**2 * (1 - area) / (1 + area) / self.images
        return shrink_variance(self.variance, expected, len(self.sums), weight) - self.variance


def number_clusters(names: Sequence[str]) -> Clusters:
    """Number names in the order of first appearance, (N,)."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)


def residuals(values: Array, clusters: Clusters) -> Residuals:
    """Sum the deviations of values, (N,), from their mean within each cluster."""
    present, index = np.unique(clusters, return_inverse=True)
    sums: Array = np.bincount(index, values - values.mean()).astype(np.float64)
    return Residuals(sums, present, len(values), float(values.mean()))


def auroc_variance(positive: Residuals, negative: Residuals) -> float:
    """Compute the variance of an AUROC, or of a difference of two, from placement residuals of both classes.

    With one image per patient, it equals DeLong's variance. It is exactly 0 if the sums of both classes cancel within
    each patient, up to rounding.

    Source: N. A. Obuchowski, Nonparametric Analysis of Clustered ROC Curve Data, 1997, section 3.
    """
    shared = 2 * covariance(positive, negative)
    independent = positive.variance + negative.variance
    return independent + shared if independent + shared > ROUNDING_ERROR * independent else 0.0


def covariance(first: Residuals, second: Residuals) -> float:
    """Compute the covariance of two means over different images, caused by patients with images in both sets."""
    _, left, right = np.intersect1d(first.clusters, second.clusters, assume_unique=True, return_indices=True)
    total = len(first.sums) + len(second.sums) - len(left)
    if total < 2:
        return 0.0  # the deviations within a single patient sum to 0
    return float(first.sums[left] @ second.sums[right]) * total / (total - 1) / (first.images * second.images)


def auroc_widening(areas: Sequence[tuple[Residuals, Residuals]]) -> float:
    """Compute the factor by which shrinkage widens the standard deviation of an AUROC, or of a mean of AUROCs."""
    variance = sum(auroc_variance(*area) for area in areas)
    added = sum(part.added_variance(_AUROC_WEIGHT) for area in areas for part in area)
    return float(np.sqrt(max(0.0, 1 + added / variance))) if variance > ROUNDING_ERROR**2 else 1.0


def precision_interval(value: float, deviation: float, areas: Sequence[tuple[Residuals, Residuals]]) -> Interval:
    """Compute the 95 % confidence interval of an average precision, or of a mean of several, on the logit scale.

    The bootstrap standard deviation is widened by two factors, both derived from the AUROC of the same images. The
    first is the effect of shrinking the variance of the negative images. The second is that of Student's t with the
    AUROC's degrees of freedom (Welch and Satterthwaite). With a single patient in a class the variance is unknown, and
    the interval is the whole range.

    Args:
        value: Average precision.
        deviation: Standard deviation of its bootstrap draws.
        areas: Residuals of the placements of positive and of negative images, one pair per class.
    """
    parts = [part for area in areas for part in area]
    if min(len(part.sums) for part in parts) < 2:
        return 0.0, 1.0
    units = min(len(positive.sums) for positive, _ in areas)
    variance = sum(part.variance for part in parts)
    if variance < ROUNDING_ERROR**2:
        return logit_interval(value, deviation, units)
    freedom = variance**2 / sum(part.variance**2 / (len(part.sums) - 1) for part in parts)
    added = sum(negative.added_variance(_PRECISION_WEIGHT) for _, negative in areas)
    widening = np.sqrt(1 + added / variance) * t.ppf(0.975, freedom) / norm.ppf(0.975)
    return logit_interval(value, deviation * float(widening), units)


def effective_size(values: Array, clusters: Clusters) -> float:
    """Compute the effective sample size of a mean: the number of independent images with the same uncertainty.

    Values, (N,), are between 0 and 1; the uncertainty is that of a proportion. A factor from Student's t accounts for
    few clusters. If all values are equal, the correlation within patients cannot be estimated, and each patient counts
    once.

    Source: E. L. Korn, B. I. Graubard, Confidence Intervals for Proportions With Small Expected Number of Positive
    Counts Estimated From Survey Data, 1998, section 2.
    """
    count, images, mean = len(np.unique(clusters)), len(values), float(values.mean())
    if count < 2 or np.ptp(values) < ROUNDING_ERROR:
        return float(count)
    variance = max(residuals(values, clusters).variance, float(values.var(ddof=1)) / images)
    ratio = mean * (1 - mean) / (images - 1) / variance
    if abs(ratio - 1) < ROUNDING_ERROR:
        ratio = 1.0
    return images * ratio / student_factor(images, count) ** 2


def class_sizes(
    label: npt.NDArray[np.int64], correct: npt.NDArray[np.generic], clusters: Clusters, classes: int
) -> tuple[list[int], list[float]]:
    """Count the patients and compute the effective sample size of each class."""
    masks, values = [label == index for index in range(classes)], correct.astype(np.float64)
    sizes = [effective_size(values[mask], clusters[mask]) if mask.any() else 0.0 for mask in masks]
    return [len(np.unique(clusters[mask])) for mask in masks], sizes


def clustered_wilson(values: npt.NDArray[np.bool_], clusters: Clusters) -> Interval:
    """Compute the Wilson interval of a proportion with the effective sample size; 0 to 1 without images."""
    if not len(values):
        return 0.0, 1.0
    size = effective_size(values.astype(np.float64), clusters)
    return wilson(int(values.sum()) * (size / len(values)), size)


def student_factor(images: int, clusters: int) -> float:
    """Compute the factor by which few clusters widen a 95 % interval; 1 with one image per patient."""
    return float(t.ppf(0.975, clusters - 1) / t.ppf(0.975, images - 1))


def stratify(label: npt.NDArray[np.generic], clusters: Clusters) -> list[Clusters]:
    """Group clusters into strata by the set of classes of their images."""
    index = np.unique(label, return_inverse=True)[1]
    present = np.zeros((int(clusters.max()) + 1, int(index.max()) + 1), np.int64)
    present[clusters, index] = 1
    stratum = present @ (1 << np.arange(present.shape[1]))
    return [np.flatnonzero(stratum == value) for value in np.unique(stratum)[::-1]]
