"""Effect of a local adaptation: metrics before and after it, and their paired differences."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pneumo.metrics.bootstrap import bootstrap, percentiles
from pneumo.metrics.definitions import METRICS, estimates, measure, paired_bootstrap
from pneumo.metrics.intervals import Array, Estimate
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.recalibration import margins, measure_calibration

_METRICS = ("balanced_accuracy", "sensitivity", "specificity", "ece", "brier")
_COMPARED = ("balanced_accuracy", "sensitivity", "specificity", "brier")
AUROC = "auroc"
TITLES = {
    AUROC: METRICS[AUROC].title,
    **{name: METRICS[name].title for name in _METRICS},
    "log_loss": "log loss",
    "calibration_intercept": "calibration intercept",
    "calibration_slope": "calibration slope",
}


class AdaptationEffect(NamedTuple):
    """Estimates by the names of `TITLES`; None: the images determine no value."""

    before: dict[str, Estimate | None]
    after: dict[str, Estimate | None]
    change: dict[str, Estimate | None]  # after minus before, on the same images


def measure_effect(before: Predictions, after: Predictions) -> AdaptationEffect:
    """Measure binary predictions for the same images before and after an adaptation.

    Intervals are clustered by patient; those of the changes are percentiles of the paired bootstrap, which treats the
    predictions of each operating point as fixed. An adaptation does not change the ranking, so the AUROC is that of
    the predictions before it.
    """
    area = estimates(before, {AUROC: METRICS[AUROC]})[AUROC]
    change: dict[str, Estimate | None] = {AUROC: None}
    values, earlier = measure(after), measure(before)
    for name in _COMPARED:
        low, high = paired_bootstrap(after, before, name)
        change[name] = Estimate(values[name] - earlier[name], low, high)
    change["log_loss"] = _loss_change(before, after)
    return AdaptationEffect(_measure(before, area), _measure(after, area), change)


def _measure(predictions: Predictions, area: Estimate) -> dict[str, Estimate | None]:
    calibration = measure_calibration(predictions)
    return {
        AUROC: area,
        **estimates(predictions, {name: METRICS[name] for name in _METRICS}),
        "log_loss": calibration.log_loss,
        "calibration_intercept": calibration.intercept,
        "calibration_slope": calibration.slope,
    }


def _loss_change(before: Predictions, after: Predictions) -> Estimate:
    change = _losses(after) - _losses(before)
    draws = bootstrap(lambda weights: weights @ change / weights.sum(axis=1), before.label, clusters=before.clusters)
    return Estimate(float(change.mean()), *percentiles(draws))


def _losses(predictions: Predictions) -> Array:
    margin = margins(predictions)
    return np.logaddexp(0, np.where(predictions.positive, -margin, margin))
