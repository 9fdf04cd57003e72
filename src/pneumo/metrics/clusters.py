"""Statistics of clustered images: several images of one patient are not independent.

Clusters are numbered from 0. With one image a patient every result equals that for independent images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, t

from pneumo.metrics.intervals import RESIDUE, Array, Interval, logit_interval, shrink_variance, wilson

Clusters = npt.NDArray[np.int64]
_AREA_WEIGHT, _PRECISION_WEIGHT = 2, 3  # patients that the expected variance of placements counts as


class Residuals(NamedTuple):
    """Deviations of images from their mean, summed within each cluster."""

    sums: Array  # sum of each cluster that has images, (C,)
    clusters: Clusters  # numbers of these clusters, (C,), rising
    images: int  # number of images
    mean: float  # mean of the images; of placements, the AUROC

    @property
    def variance(self) -> float:
        """Variance of the mean over images: that of a ratio of cluster sums."""
        count = len(self.sums)
        return float((self.sums**2).sum() / (count - 1) * (count / self.images) / self.images)

    def added_variance(self, weight: int) -> float:
        """Compute what shrinkage adds to the variance of the mean of placements.

        Rare low placements decide a good AUROC, and a class of few images may have none of them. Expected is the
        variance of independent images under exponential scores, of the class where it is larger.

        Source: J. A. Hanley, B. J. McNeil, The Meaning and Use of the Area under a Receiver Operating Characteristic
        (ROC) Curve, 1982, equation 2: Q2 less the squared area.
        """
        area = max(self.mean, 1 - self.mean)
        expected = area**2 * (1 - area) / (1 + area) / self.images
        return shrink_variance(self.variance, expected, len(self.sums), weight) - self.variance


def number_clusters(names: Sequence[str]) -> Clusters:
    """Number names in the order in which they first appear, (N,)."""
    known: dict[str, int] = {}
    return np.array([known.setdefault(name, len(known)) for name in names], np.int64)


def residuals(values: Array, clusters: Clusters) -> Residuals:
    """Sum the deviations of values, (N,), from their mean within each cluster."""
    present, place = np.unique(clusters, return_inverse=True)
    sums: Array = np.bincount(place, values - values.mean()).astype(np.float64)
    return Residuals(sums, present, len(values), float(values.mean()))


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


def area_widening(areas: Sequence[tuple[Residuals, Residuals]]) -> float:
    """Compute by how much shrinkage widens the deviation of an AUROC, or of a mean of several."""
    variance = sum(area_variance(*area) for area in areas)
    added = sum(part.added_variance(_AREA_WEIGHT) for area in areas for part in area)
    return float(np.sqrt(max(0.0, 1 + added / variance))) if variance > RESIDUE**2 else 1.0


def precision_interval(value: float, deviation: float, areas: Sequence[tuple[Residuals, Residuals]]) -> Interval:
    """Compute the 95 % interval of an average precision, or of a mean of several, on the logit scale.

    The bootstrap's deviation is widened as that of the AUROC of the same images would be if the variance of its
    negative images were shrunk, and by Student's t of the AUROC's degrees of freedom (Welch and Satterthwaite). With a
    single patient of a class the variance is unknown, and the interval is the whole range. `areas` holds, of each
    class, the residuals of the placements of positive and of negative images.
    """
    parts = [part for area in areas for part in area]
    if min(len(part.sums) for part in parts) < 2:
        return 0.0, 1.0
    units = min(len(positive.sums) for positive, _ in areas)
    variance = sum(part.variance for part in parts)
    if variance < RESIDUE**2:
        return logit_interval(value, deviation, units)
    freedom = variance**2 / sum(part.variance**2 / (len(part.sums) - 1) for part in parts)
    added = sum(negative.added_variance(_PRECISION_WEIGHT) for _, negative in areas)
    widening = np.sqrt(1 + added / variance) * t.ppf(0.975, freedom) / norm.ppf(0.975)
    return logit_interval(value, deviation * float(widening), units)


def effective_size(values: Array, clusters: Clusters) -> float:
    """Compute the number of independent images, right or wrong, whose proportion would be as uncertain as a mean.

    Student's t allows for few clusters. Where all values, 0 to 1, (N,), are the same, the similarity of images of one
    patient cannot be estimated: each patient counts once.

    Source: E. L. Korn, B. I. Graubard, Confidence Intervals for Proportions With Small Expected Number of Positive
    Counts Estimated From Survey Data, 1998, section 2.
    """
    count, images, mean = len(np.unique(clusters)), len(values), float(values.mean())
    if count < 2 or np.ptp(values) < RESIDUE:
        return float(count)
    variance = max(residuals(values, clusters).variance, float(values.var(ddof=1)) / images)
    ratio = mean * (1 - mean) / (images - 1) / variance
    if abs(ratio - 1) < RESIDUE:
        ratio = 1.0
    return images * ratio / student_factor(images, count) ** 2


def class_sizes(
    label: npt.NDArray[np.int64], right: npt.NDArray[np.generic], clusters: Clusters, classes: int
) -> tuple[list[int], list[float]]:
    """Count the patients with images of each class, and compute `effective_size` of its images."""
    inside, values = [label == number for number in range(classes)], right.astype(np.float64)
    sizes = [effective_size(values[chosen], clusters[chosen]) if chosen.any() else 0.0 for chosen in inside]
    return [len(np.unique(clusters[chosen])) for chosen in inside], sizes


def clustered_wilson(values: npt.NDArray[np.bool_], clusters: Clusters) -> Interval:
    """Compute Wilson's interval of the effective number of images; 0 to 1 where there is no image."""
    if not len(values):
        return 0.0, 1.0
    size = effective_size(values.astype(np.float64), clusters)
    return wilson(int(values.sum()) * (size / len(values)), size)


def student_factor(images: int, clusters: int) -> float:
    """Compute by how much few clusters widen a 95 % interval: the ratio of Student's t, 1 with one image a patient."""
    return float(t.ppf(0.975, clusters - 1) / t.ppf(0.975, images - 1))


def stratify(label: npt.NDArray[np.generic], clusters: Clusters) -> list[Clusters]:
    """List the clusters whose images are of the same classes, each in one stratum."""
    number = np.unique(label, return_inverse=True)[1]
    classes = np.zeros((int(clusters.max()) + 1, int(number.max()) + 1), np.int64)
    classes[clusters, number] = 1
    kind = classes @ (1 << np.arange(classes.shape[1]))
    return [np.flatnonzero(kind == value) for value in np.unique(kind)[::-1]]
