"""Metrics of the subtypes of pneumonia, for tests only.

They are not among `pneumo.metrics.definitions.METRICS`, which training and validation log in each epoch and which
results.json has of all three. Where a metric needs images that are absent, its value is `NO_IMAGE`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import log_expit

from pneumo.common import SUBTYPES
from pneumo.metrics.bootstrap import Resamples
from pneumo.metrics.clusters import clustered_wilson
from pneumo.metrics.confusion import divide
from pneumo.metrics.definitions import auroc
from pneumo.metrics.estimation import Metric, Sample
from pneumo.metrics.intervals import Array, Interval
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.significance import delong_interval, placements

NO_IMAGE = -1.0  # stands for a metric of subtypes that no image has, or that the task does not distinguish


def _sensitivity(subtype: str) -> Metric:
    """Define the sensitivity to a subtype: the fraction of its images whose predicted class is right.

    That class is pneumonia, or with three classes the subtype itself.
    """

    def compute(resamples: Resamples) -> Array:
        chosen = _is_of(subtype, resamples.predictions)
        weights = resamples.weights[:, chosen]
        total = weights.sum(axis=1)
        return np.where(total > 0, divide(weights @ resamples.predictions.right[chosen], total), NO_IMAGE)

    def interval(_: Metric, sample: Sample) -> Interval:
        chosen = _is_of(subtype, sample.predictions)
        return clustered_wilson(sample.predictions.right[chosen], sample.clusters[chosen])

    return Metric(
        name=f"sensitivity_{subtype}",
        title=f"sensitivity to {subtype} pneumonia",
        compute=compute,
        interval=interval,
        needs="any",
    )


def _is_of(subtype: str, predictions: Predictions) -> npt.NDArray[np.bool_]:
    known = np.array(predictions.subtypes or ("",) * len(predictions.label))
    found: npt.NDArray[np.bool_] = predictions.positive & (known == subtype)
    return found


def _separation(resamples: Resamples) -> Array:
    """Compute the AUROC of viral against bacterial pneumonia, (R,)."""
    predictions = resamples.predictions
    if not _has_both(predictions):
        return np.full(len(resamples.weights), NO_IMAGE)
    return auroc(Resamples(_sides(predictions), resamples.weights[:, predictions.positive]))


def _separation_interval(_: Metric, sample: Sample) -> Interval:
    if not _has_both(sample.predictions):
        return 0.0, 1.0
    sides = _sides(sample.predictions)
    return delong_interval(placements(sides.score, sides.positive, sample.clusters[sample.predictions.positive]))


def _has_both(predictions: Predictions) -> bool:
    """Return whether the images with pneumonia are of two classes."""
    viral = predictions.label[predictions.positive] == 2
    return bool(viral.any() and not viral.all())


def _sides(predictions: Predictions) -> Predictions:
    """Rank the images with pneumonia by the fraction that viral has of both probabilities."""
    ill = predictions.take(np.flatnonzero(predictions.positive))
    pair = ill.probability[:, 1:]
    fraction = pair[:, 1] / np.maximum(pair.sum(axis=1), np.finfo(np.float64).tiny)
    odds = None if ill.odds is None else np.subtract(*log_expit(ill.odds[:, :0:-1]).T)  # of viral, by both logarithms
    return Predictions.binary(fraction, ill.label == 2, fraction > 0.5, margin=odds)


_ENTRIES = (
    *(_sensitivity(subtype) for subtype in SUBTYPES),
    Metric(
        name="auroc_bacterial_viral",
        title="AUROC, bacterial against viral",
        compute=_separation,
        interval=_separation_interval,
        needs="any",
    ),
)
SUBTYPE_METRICS = {metric.name: metric for metric in _ENTRIES}
