"""ROC and precision-recall curves with 95 % confidence bands from the stratified bootstrap."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.metrics import roc_curve

from pneumo.metrics.bootstrap import Resamples, bootstrap
from pneumo.metrics.clusters import precision_interval
from pneumo.metrics.definitions import auprc
from pneumo.metrics.intervals import Array, Estimate
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.significance import delong_interval, placements

_RESAMPLES = 500  # fewer than for results.json, since bands are only plotted
GRID = np.linspace(0, 1, 101)


class Band(NamedTuple):
    """Pointwise 95 % confidence band of a curve at GRID, (101,)."""

    low: Array
    high: Array


class Curves(NamedTuple):
    """Confidence bands of the ROC and precision-recall curves, and their areas."""

    sensitivity: Band  # ROC curve: sensitivity against 1 - specificity
    precision: Band  # precision-recall curve: precision against sensitivity
    auroc: Estimate  # area under the ROC curve
    auprc: Estimate  # average precision


def roc(predictions: Predictions) -> tuple[Array, Array]:
    """Compute 1 - specificity and sensitivity at all thresholds; empty arrays if a class is absent."""
    if not predictions.has_both_classes:
        return np.empty(0), np.empty(0)
    false, true, _ = roc_curve(predictions.positive, predictions.score)
    return false, true


def precision_recall(predictions: Predictions) -> tuple[Array, Array]:
    """Compute sensitivity and precision at each threshold with a further true positive, starting at sensitivity 0."""
    true, false = (counts[0] for counts in Resamples(predictions).ranked[0])
    detected, further = np.cumsum(true), true > 0
    precision: Array = detected / (detected + np.cumsum(false))
    return np.append(0, detected[further] / detected[-1]), np.append(precision[further][:1], precision[further])


def interpolate_curves(true: Array, false: Array) -> Array:
    """Compute the ROC curve and the precision-recall curve at GRID, (R, 2, 101).

    The sensitivity is interpolated linearly between thresholds. The precision is that of the first threshold that
    reaches the sensitivity, so its mean is the average precision. `true` and `false` are as in `Resamples.ranked`.
    """
    detected, alarms = (np.cumsum(counts, axis=1) for counts in (true, false))
    precision = detected / np.maximum(detected + alarms, 1)
    recall, fallout = (np.pad(counts / counts[:, -1:], ((0, 0), (1, 0))) for counts in (detected, alarms))
    grid = np.maximum(GRID, 2e-9) - 1e-9  # tolerates rounding errors of the recall
    curves = np.empty((len(true), 2, len(GRID)))
    for row, (y, x, z) in enumerate(zip(recall, fallout, precision, strict=True)):
        curves[row] = np.interp(GRID, x, y), z[np.searchsorted(y[1:], grid)]
    return curves


def measure_curves(predictions: Predictions) -> Curves:
    """Compute bands and areas for predictions with both classes; intervals as in `pneumo.metrics.definitions`."""

    def statistic(weights: Array) -> Array:
        resamples = Resamples(predictions, weights)
        return np.column_stack((interpolate_curves(*resamples.ranked[0]).reshape(len(weights), -1), auprc(resamples)))

    area = float(auprc(Resamples(predictions))[0])
    draws = bootstrap(statistic, predictions.label, _RESAMPLES, clusters=predictions.clusters)
    low, high = (np.split(end, 2) for end in np.quantile(draws[:, :-1], (0.025, 0.975), axis=0))
    placed = placements(predictions.score, predictions.positive, predictions.clusters)
    return Curves(
        Band(low[0], high[0]),
        Band(low[1], high[1]),
        Estimate(float(placed.positive.mean()), *delong_interval(placed)),
        Estimate(area, *precision_interval(area, float(draws[:, -1].std(ddof=1)), [placed.residuals])),
    )
