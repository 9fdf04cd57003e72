"""The results of a test: metrics with their 95 % intervals, counts, and figures of the subtypes."""

from __future__ import annotations

import numpy as np
from scipy.special import log_expit

from pneumo.evaluation.answers import Predictions
from pneumo.evaluation.bootstrap import Resamples
from pneumo.evaluation.clusters import proportion_interval
from pneumo.evaluation.metrics import auroc, estimates
from pneumo.evaluation.results import NO_IMAGE, SUBTYPES, Results, confusion
from pneumo.evaluation.significance import auroc_interval, placements


def summarise(predictions: Predictions) -> Results:
    """Compute what results.json holds of a test.

    Where a metric or its interval needs a class or a subtype that is absent, the interval is the whole range. The
    sensitivity to a subtype is the fraction of its images whose predicted class is right: pneumonia, or with three
    classes the subtype itself. Without images it is -1.

    Args:
        predictions: Of two classes, or of normal, bacterial and viral; with the images' subtypes.
    """
    results, clusters = confusion(predictions.label, predictions.predicted), predictions.clusters
    for name, estimate in estimates(predictions).items():
        results |= dict(zip(_keys(name), estimate, strict=True))
    subtypes = np.array(predictions.subtypes or ("",) * len(clusters))
    for subtype in SUBTYPES:
        chosen = predictions.positive & (subtypes == subtype)
        hits = predictions.right[chosen]
        value = float(hits.mean()) if len(hits) else NO_IMAGE
        interval = proportion_interval(hits, clusters[chosen])
        results |= dict(zip(_keys(f"sensitivity_{subtype}"), (value, *interval), strict=True))
    return results | dict(zip(_keys("auroc_bacterial_viral"), _separate_subtypes(predictions), strict=True))


def _separate_subtypes(predictions: Predictions) -> tuple[float, float, float]:
    """Compute the AUROC of bacterial against viral pneumonia and its interval.

    Images are ranked by the fraction that viral has of both probabilities.
    """
    viral = predictions.label[predictions.positive] == 2
    if viral.all() or not viral.any():
        return NO_IMAGE, 0.0, 1.0
    ill = predictions.take(np.flatnonzero(predictions.positive))
    pair = ill.probability[:, 1:]
    share = pair[:, 1] / np.maximum(pair.sum(axis=1), np.finfo(np.float64).tiny)
    odds = None if ill.odds is None else np.subtract(*log_expit(ill.odds[:, :0:-1]).T)  # of viral, by both logarithms
    sides = Predictions.binary(share, viral, share > 0.5, margin=odds)
    interval = auroc_interval(placements(sides.score, viral, predictions.clusters[predictions.positive]))
    return float(auroc(Resamples(sides))[0]), *interval


def _keys(name: str) -> tuple[str, str, str]:
    return f"test_{name}", f"test_{name}_ci_low", f"test_{name}_ci_high"
