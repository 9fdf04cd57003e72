"""Shortcut probes: gradient-boosted trees that predict labels from features that should not reveal them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedGroupKFold
from threadpoolctl import threadpool_limits

from pneumo.metrics.bootstrap import Resamples, percentiles
from pneumo.metrics.definitions import auroc
from pneumo.metrics.intervals import Array, Estimate, Interval
from pneumo.metrics.predictions import Predictions

_FOLDS, _DRAWS = 5, 400  # of the cross-validation and of the bootstrap
_FEW_IMAGES = 3_000  # threads hardly speed up fewer images, and on a busy machine they wait for each other


@dataclass(frozen=True)
class Probe:
    """Cross-validated AUROC of a shortcut classifier."""

    name: str  # name of the features, such as metadata or thumbnail
    # Out-of-fold AUROC; with more than two classes, the one-vs-rest mean. None for one class or too few patients.
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

    Args:
        name: Name of the probe.
        rows: Features of each image, (N, K).
        labels: Class of each image, (N,).
        groups: Index of each image's patient, (N,). Images of one patient are in the same fold.
    """
    classes, labels = np.unique(labels, return_inverse=True)
    patients = [len(np.unique(groups[labels == label])) for label in range(len(classes))]
    folds = min(_FOLDS, *patients) if len(classes) > 1 else 0
    if folds < 2:
        return Probe(name, None, None, None)
    if not np.ptp(rows, axis=0).any():
        return Probe(name, 0.5, 0.5, 0.5)  # constant features carry no information
    probabilities = np.zeros((len(rows), len(classes)))
    for train, test in StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(rows, labels, groups):
        if len(np.unique(labels[train])) < len(classes):
            return Probe(name, None, None, None)
        with threadpool_limits(1 if len(rows) < _FEW_IMAGES else None):
            model = HistGradientBoostingClassifier(random_state=0).fit(rows[train], labels[train])
            probabilities[test] = model.predict_proba(rows[test])
    predictions = Predictions(probabilities, labels, probabilities.argmax(1))
    return Probe(name, float(auroc(Resamples(predictions))[0]), *_interval(predictions, groups))


def _interval(predictions: Predictions, groups: NDArray[np.int64]) -> Interval:
    random, count = np.random.default_rng(0), int(groups.max()) + 1
    areas: list[float] = []
    while len(areas) < _DRAWS:
        weights = np.bincount(random.integers(0, count, count), minlength=count)[groups].astype(np.float64)
        if len(np.unique(predictions.label[weights > 0])) == predictions.probability.shape[1]:
            areas.append(float(auroc(Resamples(predictions, weights[None]))[0]))
    return percentiles(np.array(areas))
