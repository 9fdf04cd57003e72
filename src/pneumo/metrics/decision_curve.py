"""Decision curves: net benefit against the threshold probability."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from pneumo.errors import ConfigError, DataError
from pneumo.metrics.bootstrap import bootstrap
from pneumo.metrics.confusion import divide
from pneumo.metrics.intervals import Array
from pneumo.metrics.predictions import Predictions

_RESAMPLES = 500  # as for the bands of other curves
THRESHOLDS = np.linspace(0.01, 0.99, 99)


class DecisionCurve(NamedTuple):
    """Net benefit per image at T threshold probabilities, each (T,). Treating no one has a net benefit of 0."""

    threshold: Array
    model: Array  # net benefit of treating images whose probability exceeds the threshold
    low: Array  # pointwise 95 % band of `model`
    high: Array
    treat_all: Array  # net benefit of treating everyone


def decision_curve(
    predictions: Predictions, thresholds: Array | None = None, prevalence: float | None = None
) -> DecisionCurve:
    """Compute a decision curve with its bootstrap band; all positive classes together count as positive.

    The net benefit is the fraction of true positives minus the fraction of false positives times the odds of the
    threshold. The band describes sensitivity and specificity at a fixed prevalence.

    Source: A. J. Vickers, E. B. Elkin, Decision Curve Analysis: A Novel Method for Evaluating Prediction Models, 2006.

    Args:
        predictions: Predictions for N images.
        thresholds: Threshold probabilities, (T,), at least 0 and below 1; None: 0.01 to 0.99.
        prevalence: Prevalence of the positive class; None: that of the images.

    Raises:
        ConfigError: A threshold or the prevalence is outside its range.
        DataError: A prevalence is given, but a class is absent.
    """
    grid = THRESHOLDS if thresholds is None else np.asarray(thresholds, np.float64)
    if not ((grid >= 0) & (grid < 1)).all():
        raise ConfigError("Threshold probabilities of a decision curve must be at least 0 and below 1.")
    if prevalence is not None and not 0 < prevalence < 1:
        raise ConfigError(f"The prevalence {prevalence:g} must be above 0 and below 1.")
    if prevalence is not None and not predictions.has_both_classes:
        raise DataError("A decision curve at a stated prevalence requires positive and negative images.")
    positive = predictions.positive
    fraction = float(positive.mean()) if prevalence is None else prevalence
    odds = grid / (1 - grid)
    order = np.argsort(grid, kind="stable")
    # Column of an image: number of thresholds below its probability; those of negative images follow.
    column = np.searchsorted(grid[order], predictions.positive_probability) + ~positive * (len(grid) + 1)
    images = len(column)
    select = csr_array((np.ones(images), (np.arange(images), column)), shape=(images, 2 * len(grid) + 2)).T.tocsr()

    def statistic(weights: Array) -> Array:
        counts = (select @ weights.T).T.reshape(len(weights), 2, -1)
        above = np.cumsum(counts[:, :, ::-1], axis=2)[:, :, -2::-1]
        rates = np.empty_like(above)
        rates[:, :, order] = divide(above, counts.sum(axis=2, keepdims=True))
        benefit: Array = rates[:, 0] * fraction - rates[:, 1] * (1 - fraction) * odds
        return benefit

    draws = bootstrap(statistic, predictions.label > 0, _RESAMPLES, clusters=predictions.clusters)
    low, high = np.quantile(draws, (0.025, 0.975), axis=0)
    return DecisionCurve(grid, statistic(np.ones((1, images)))[0], low, high, fraction - (1 - fraction) * odds)
