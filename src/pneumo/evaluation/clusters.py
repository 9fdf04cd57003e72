"""Statistics of clustered images: several images of one patient are not independent.

Clusters are numbered from 0. With one image a patient every result equals that for independent images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import t

from pneumo.evaluation.intervals import RESIDUE, Interval, wilson

Array = npt.NDArray[np.float64]
Clusters = npt.NDArray[np.int64]


class Residuals(NamedTuple):
    """Deviations of images from their mean, summed within each cluster.

    Attributes:
        sums: Sum of each cluster that has images, (C,).
        clusters: Numbers of these clusters, (C,), rising.
        images: Number of images.
    """

    sums: Array
    clusters: Clusters
    images: int

    @property
    def variance(self) -> float:
        """Variance of the mean over images: that of a ratio of cluster sums."""
        count = len(self.sums)
        return float((self.sums**2).sum() / (count - 1) * (count / self.images) / self.images)


def number_clusters(names: Sequence[str]) -> Clusters:
    """Number names in the order in which they first appear, (N,)."""
    known: dict[str, int] = {}
    return np.array([known.setdefault(name, len(known)) for name in names], np.int64)


def residuals(values: Array, clusters: Clusters) -> Residuals:
    """Sum the deviations of values, (N,), from their mean within each cluster."""
    present, place = np.unique(clusters, return_inverse=True)
    sums: Array = np.bincount(place, values - values.mean()).astype(np.float64)
    return Residuals(sums, present, len(values))


def area_variance(positive: Residuals, negative: Residuals) -> float:
    """Compute the variance of an AUROC, or of a difference of two, from placements of positive and negative images.

    Source: N. A. Obuchowski, Nonparametric Analysis of Clustered ROC Curve Data, 1997, section 3. With one image a
    patient it is DeLong's. What rounding leaves where the classes' sums cancel within each patient is 0.
    """
    _, one, two = np.intersect1d(positive.clusters, negative.clusters, assume_unique=True, return_indices=True)
    total = len(positive.sums) + len(negative.sums) - len(one)
    covariance = float(positive.sums[one] @ negative.sums[two]) * total / (total - 1)
    both = 2 * covariance / (positive.images * negative.images)
    alone = positive.variance + negative.variance
    return alone + both if alone + both > RESIDUE * alone else 0.0


def effective_size(values: Array, clusters: Clusters) -> float:
    """Compute the number of independent images, right or wrong, whose proportion would be as uncertain as a mean.

    Student's t allows for few clusters. Where all values are the same, the similarity of images of one patient cannot
    be estimated: each patient counts once.

    Source: E. L. Korn, B. I. Graubard, Confidence Intervals for Proportions With Small Expected Number of Positive
    Counts Estimated From Survey Data, 1998, section 2.

    Args:
        values: 1 where the image is right and 0 where it is not, or the mean over seeds, (N,).
        clusters: Cluster of each image, (N,).
    """
    count, images, mean = len(np.unique(clusters)), len(values), float(values.mean())
    if count < 2 or np.ptp(values) < RESIDUE:
        return float(count)
    variance = max(residuals(values, clusters).variance, float(values.var(ddof=1)) / images)
    ratio = mean * (1 - mean) / (images - 1) / variance
    if abs(ratio - 1) < RESIDUE:
        ratio = 1.0
    return images * ratio / student_factor(images, count) ** 2


def count_patients(label: npt.NDArray[np.int64], clusters: Clusters, classes: int) -> list[int]:
    """Count the patients with images of each class, from labels, (N,), and the cluster of each image, (N,)."""
    return [len(np.unique(clusters[label == number])) for number in range(classes)]


def class_sizes(
    label: npt.NDArray[np.int64], right: npt.NDArray[np.generic], clusters: Clusters, classes: int
) -> tuple[list[int], list[float]]:
    """Count the patients with images of each class, and compute the effective number of its images.

    Args:
        label: From 0, (N,).
        right: As `values` in `effective_size`, (N,).
        clusters: Cluster of each image, (N,).
        classes: Their number.
    """
    inside, values = [label == number for number in range(classes)], right.astype(np.float64)
    sizes = [effective_size(values[chosen], clusters[chosen]) if chosen.any() else 0.0 for chosen in inside]
    return count_patients(label, clusters, classes), sizes


def proportion_interval(values: npt.NDArray[np.bool_], clusters: Clusters) -> Interval:
    """Compute the 95 % interval of a proportion of images: Wilson's of the effective number of images.

    It is the whole range where there is no image.
    """
    if not len(values):
        return 0.0, 1.0
    hits, images = int(values.sum()), len(values)
    size = effective_size(values.astype(np.float64), clusters)
    return wilson(hits * (size / images), size)


def student_factor(images: int, clusters: int) -> float:
    """Compute by how much few clusters widen a 95 % interval: the ratio of Student's t, 1 with one image a patient."""
    return float(t.ppf(0.975, clusters - 1) / t.ppf(0.975, images - 1))


def stratify(label: npt.NDArray[np.generic], clusters: Clusters) -> list[Clusters]:
    """List the clusters whose images are of the same classes, each in one stratum.

    Args:
        label: Class of each image, (N,).
        clusters: Cluster of each image, (N,).
    """
    number = np.unique(label, return_inverse=True)[1]
    classes = np.zeros((int(clusters.max()) + 1, int(number.max()) + 1), np.int64)
    classes[clusters, number] = 1
    kind = classes @ (1 << np.arange(classes.shape[1]))
    return [np.flatnonzero(kind == value) for value in np.unique(kind)[::-1]]
