"""Shortcut probes: gradient-boosted trees that predict labels from features that should not reveal them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedGroupKFold
from threadpoolctl import threadpool_limits

from pneumo.metrics.bootstrap import Resamples, percentiles
from pneumo.metrics.definitions import auroc
from pneumo.metrics.intervals import ROUNDING_ERROR, Array, Estimate, Interval, zero_variance_interval
from pneumo.metrics.predictions import Predictions

# Of each class. With five, intervals of features without information contained 0.5 in 72 % of 200 simulated sets.
MIN_PATIENTS = 10
TOO_FEW_PATIENTS = f"fewer than {MIN_PATIENTS} patients of a class"
_FOLDS, _DRAWS = 5, 400  # of the cross-validation and of the bootstrap
_MAX_LEAF_SIZE = 20  # smallest leaf in images, reached at 200 images; smaller sets have leaves of a tenth
_FEW_IMAGES = 3_000  # threads hardly speed up fewer images, and on a busy machine they wait for each other


@dataclass(frozen=True)
class Probe:
    """Cross-validated AUROC of a shortcut classifier."""

    name: str  # name of the features, such as metadata or thumbnail
    # Out-of-fold AUROC; with more than two classes, the one-vs-rest mean. None for one class, or if one has fewer than
    # `MIN_PATIENTS`.
    auroc: float | None
    low: float | None  # lower end of its 95 % interval, from a bootstrap over patients
    high: float | None  # upper end

    @property
    def estimate(self) -> Estimate | None:
        """The AUROC with its interval; None without one."""
        if self.auroc is None or self.low is None or self.high is None:
            return None
        return Estimate(self.auroc, self.low, self.high)


def probe(name: str, rows: Array, labels: NDArray[np.int64], groups: NDArray[np.int64]) -> Probe:
    """Predict labels from features by cross-validated gradient-boosted trees and compute the AUROC.

    If the bootstrap interval has no width, as for constant features or separable classes, the interval is
    `zero_variance_interval`.

    Args:
        name: Name of the probe.
        rows: Features of each image, (N, K).
        labels: Class of each image, (N,).
        groups: Index of each image's patient, (N,). Images of one patient are in the same fold.
    """
    classes, labels = np.unique(labels, return_inverse=True)
    patients = [len(np.unique(groups[labels == label])) for label in range(len(classes))]
    smallest = min(patients)
    if len(classes) < 2 or smallest < MIN_PATIENTS:
        return Probe(name, None, None, None)
    if not np.ptp(rows, axis=0).any():  # constant features carry no information
        return Probe(name, 0.5, *zero_variance_interval(0.5, smallest))
    probabilities = np.zeros((len(rows), len(classes)))
    leaf = min(_MAX_LEAF_SIZE, len(rows) // 10)
    for train, test in StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0).split(rows, labels, groups):
        if len(np.unique(labels[train])) < len(classes):
            return Probe(name, None, None, None)
        with threadpool_limits(1 if len(rows) < _FEW_IMAGES else None):
            model = HistGradientBoostingClassifier(min_samples_leaf=leaf, random_state=0)
            probabilities[test] = model.fit(rows[train], labels[train]).predict_proba(rows[test])
    predictions = Predictions(probabilities, labels, probabilities.argmax(1))
    value = float(auroc(Resamples(predictions))[0])
    low, high = _interval(predictions, groups)
    if high - low < ROUNDING_ERROR:
        low, high = zero_variance_interval(value, smallest)
    return Probe(name, value, low, high)


def _interval(predictions: Predictions, groups: NDArray[np.int64]) -> Interval:
    random, count = np.random.default_rng(0), int(groups.max()) + 1
    areas: list[float] = []
    while len(areas) < _DRAWS:
        weights = np.bincount(random.integers(0, count, count), minlength=count)[groups].astype(np.float64)
        if len(np.unique(predictions.label[weights > 0])) == predictions.probability.shape[1]:
            areas.append(float(auroc(Resamples(predictions, weights[None]))[0]))
    return percentiles(np.array(areas))
