"""ROC and precision-recall curves with 95 % bands, by the stratified bootstrap."""

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

_RESAMPLES = 500  # fewer than for the intervals in results.json: a band is looked at
GRID = np.linspace(0, 1, 101)


class Band(NamedTuple):
    """Where a curve lies, at each x of GRID, in 95 % of resamples."""

    low: Array
    high: Array


class Curves(NamedTuple):
    """Curves of the ranking of images of two classes, with their areas."""

    sensitivity: Band  # band against 1 - specificity
    precision: Band  # band against sensitivity
    auroc: Estimate  # area under the first curve
    auprc: Estimate  # average precision


def roc(predictions: Predictions) -> tuple[Array, Array]:
    """Compute 1 - specificity and sensitivity for all thresholds; nothing if one of the classes is absent."""
    if not predictions.has_both_classes:
        return np.empty(0), np.empty(0)
    false, true, _ = roc_curve(predictions.positive, predictions.score)
    return false, true


def precision_recall(predictions: Predictions) -> tuple[Array, Array]:
    """Compute sensitivity and precision at each threshold that finds a further positive image, and at the start."""
    true, false = (counts[0] for counts in Resamples(predictions).ranked[0])
    found, further = np.cumsum(true), true > 0
    precision: Array = found / (found + np.cumsum(false))
    return np.append(0, found[further] / found[-1]), np.append(precision[further][:1], precision[further])


def on_grid(true: Array, false: Array) -> Array:
    """Compute sensitivity against 1 - specificity and precision against sensitivity at GRID, (R, 2, 101).

    The sensitivity is interpolated between thresholds; the precision is that of the first threshold that finds so many
    of the positive images, whose mean is the average precision. `true` and `false` are as in `Resamples.ranked`.
    """
    found, alarms = (np.cumsum(counts, axis=1) for counts in (true, false))
    precision = found / np.maximum(found + alarms, 1)
    found, alarms = (np.pad(counts / counts[:, -1:], ((0, 0), (1, 0))) for counts in (found, alarms))
    wanted = np.maximum(GRID, 2e-9) - 1e-9  # shares are rounded
    curves = np.empty((len(true), 2, len(GRID)))
    for row, (sensitivity, alarm, of_called) in enumerate(zip(found, alarms, precision, strict=True)):
        curves[row] = np.interp(GRID, alarm, sensitivity), of_called[np.searchsorted(sensitivity[1:], wanted)]
    return curves


def measure_curves(predictions: Predictions) -> Curves:
    """Compute bands and areas of images of both classes, with intervals as in `pneumo.metrics.definitions`."""

    def statistic(weights: Array) -> Array:
        resamples = Resamples(predictions, weights)
        return np.column_stack((on_grid(*resamples.ranked[0]).reshape(len(weights), -1), auprc(resamples)))

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
