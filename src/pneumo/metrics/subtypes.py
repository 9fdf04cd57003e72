"""Metrics of the subtypes of pneumonia, computed on the test set only.

They are not in `pneumo.metrics.definitions.METRICS`: those metrics are logged in each epoch and stored in results.json
for training, validation and test. A metric is `NO_IMAGE` if the required images are absent.
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

NO_IMAGE = -1.0  # value of metrics of subtypes that no image has or that the task does not distinguish


def _sensitivity(subtype: str) -> Metric:
    """Define the sensitivity for a subtype: the fraction of its images that are predicted correctly.

    The correct class is that of the image: pneumonia, or the subtype itself if subtypes are classes.
    """

    def compute(resamples: Resamples) -> Array:
        mask = _has_subtype(subtype, resamples.predictions)
        weights = resamples.weights[:, mask]
        total = weights.sum(axis=1)
        return np.where(total > 0, divide(weights @ resamples.predictions.correct[mask], total), NO_IMAGE)

    def interval(_: Metric, sample: Sample) -> Interval:
        mask = _has_subtype(subtype, sample.predictions)
        return clustered_wilson(sample.predictions.correct[mask], sample.clusters[mask])

    return Metric(
        name=f"sensitivity_{subtype}",
        title=f"sensitivity for {subtype} pneumonia",
        compute=compute,
        interval=interval,
        needs="any",
    )


def _has_subtype(subtype: str, predictions: Predictions) -> npt.NDArray[np.bool_]:
    subtypes = np.array(predictions.subtypes or ("",) * len(predictions.label))
    mask: npt.NDArray[np.bool_] = predictions.positive & (subtypes == subtype)
    return mask


def _subtype_auroc(resamples: Resamples) -> Array:
    """Compute the AUROC of viral versus bacterial pneumonia, (R,)."""
    predictions = resamples.predictions
    if not _has_both_subtypes(predictions):
        return np.full(len(resamples.weights), NO_IMAGE)
    return auroc(Resamples(_viral_vs_bacterial(predictions), resamples.weights[:, predictions.positive]))


def _subtype_auroc_interval(_: Metric, sample: Sample) -> Interval:
    if not _has_both_subtypes(sample.predictions):
        return 0.0, 1.0
    binary = _viral_vs_bacterial(sample.predictions)
    return delong_interval(placements(binary.score, binary.positive, sample.clusters[sample.predictions.positive]))


def _has_both_subtypes(predictions: Predictions) -> bool:
    names = tuple(name.lower() for name in predictions.classes[1:]) or SUBTYPES
    if predictions.probability.shape[1] != 1 + len(SUBTYPES) or names != SUBTYPES:
        return False  # other classes
    viral = predictions.label[predictions.positive] == 2
    return bool(viral.any() and not viral.all())


def _viral_vs_bacterial(predictions: Predictions) -> Predictions:
    """Build binary predictions for images with pneumonia; probabilities are normalized over both subtypes."""
    subset = predictions.take(np.flatnonzero(predictions.positive))
    pair = subset.probability[:, 1:]
    fraction = pair[:, 1] / np.maximum(pair.sum(axis=1), np.finfo(np.float64).tiny)
    odds = None if subset.odds is None else np.subtract(*log_expit(subset.odds[:, :0:-1]).T)  # log probability ratio
    return Predictions.binary(fraction, subset.label == 2, fraction > 0.5, margin=odds)


_DEFINITIONS = (
    *(_sensitivity(subtype) for subtype in SUBTYPES),
    Metric(
        name="auroc_bacterial_viral",
        title="AUROC, bacterial against viral",
        compute=_subtype_auroc,
        interval=_subtype_auroc_interval,
        needs="any",
    ),
)
SUBTYPE_METRICS = {metric.name: metric for metric in _DEFINITIONS}
