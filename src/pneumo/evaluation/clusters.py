"""Statistics of clustered images: several images of one patient are not independent.

Clusters are numbered from 0. With one image a patient every result equals that for independent images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import t

from pneumo.evaluation.intervals import RESIDUE

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
    patient it is DeLong's.
    """
    _, one, two = np.intersect1d(positive.clusters, negative.clusters, assume_unique=True, return_indices=True)
    total = len(positive.sums) + len(negative.sums) - len(one)
    covariance = float(positive.sums[one] @ negative.sums[two]) * total / (total - 1)
    both = 2 * covariance / (positive.images * negative.images)
    return max(0.0, positive.variance + negative.variance + both)


def effective_size(values: Array, clusters: Clusters) -> float:
    """Compute the number of independent images whose mean would be as uncertain as that of clustered values, (N,).

    The design effect, at least 1, divides the number of images; Student's t allows for few clusters. Where all values
    are the same, nothing tells how much images of one patient resemble each other: each patient counts once.

    Source: E. L. Korn, B. I. Graubard, Confidence Intervals for Proportions With Small Expected Number of Positive
    Counts Estimated From Survey Data, 1998, section 2.
    """
    count, images = len(np.unique(clusters)), len(values)
    if count == images:
        return float(images)
    if count < 2 or np.ptp(values) < RESIDUE:
        return float(count)
    effect = residuals(values, clusters).variance / residuals(values, np.arange(images)).variance
    return images / max(1.0, effect) * student_factor(images, count) ** -2


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
