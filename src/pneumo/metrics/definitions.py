"""Metric definitions: name, title, function and interval of each.

Results have `test_NAME` with `test_NAME_ci_low` and `_high`; training and validation log `train/NAME` and `val/NAME`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from pneumo.errors import ConfigError
from pneumo.metrics import confusion, estimation
from pneumo.metrics.bootstrap import RESAMPLES, Resamples, bootstrap, percentiles
from pneumo.metrics.confusion import divide
from pneumo.metrics.estimation import Compute, Metric, Sample, count_interval, recall_interval
from pneumo.metrics.intervals import RESIDUE, Array, Estimate, Interval, unvaried_difference
from pneumo.metrics.predictions import Predictions


def auroc(resamples: Resamples) -> Array:
    """Compute the area under the ROC curve, ties by half, (R,)."""
    areas = []
    for true, false in resamples.ranked:
        pairs = np.einsum("rt,rt->r", np.cumsum(true, axis=1) - true / 2, false)  # in which the positive ranks higher
        areas.append(divide(pairs, true.sum(axis=1) * false.sum(axis=1)))
    return np.asarray(np.mean(areas, axis=0))


def auprc(resamples: Resamples) -> Array:
    """Compute the average precision, images of one score together, (R,)."""
    precisions = []
    for true, false in resamples.ranked:
        found = np.cumsum(true, axis=1)
        precision = found / np.maximum(found + np.cumsum(false, axis=1), 1)
        precisions.append(divide(np.einsum("rt,rt->r", true, precision), true.sum(axis=1)))
    return np.asarray(np.mean(precisions, axis=0))


def ece(resamples: Resamples) -> Array:
    """Compute the expected calibration error, (R,).

    Source: C. Guo et al., On Calibration of Modern Neural Networks, 2017, equation 3.
    """
    error: Array = np.abs(resamples.bin_residuals).sum(axis=1)
    return error


def brier(resamples: Resamples) -> Array:
    """Compute the mean squared error of probabilities, of more than two classes summed over the classes, (R,)."""
    predictions = resamples.predictions
    if predictions.is_binary:
        errors = (predictions.positive_probability - predictions.positive) ** 2
    else:
        truth = predictions.label[:, None] == np.arange(predictions.probability.shape[1])
        errors = ((predictions.probability - truth) ** 2).sum(axis=1)
    score: Array = resamples.weights @ errors / resamples.total
    return score


def _of_tables(function: Callable[[Array], Array]) -> Compute:
    return lambda resamples: function(resamples.tables)


_ENTRIES = (
    Metric(
        name="accuracy",
        title="accuracy",
        compute=_of_tables(confusion.accuracy),
        interval=estimation.proportion_interval,
        needs="any",
        rank=0,
        about="of the test images",
        method="Wilson's interval",
        over_seeds=estimation.accuracy_of_seeds,
        compare=estimation.compare_accuracies,
    ),
    Metric(
        name="auroc",
        title="AUROC",
        compute=auroc,
        interval=estimation.auroc_interval,
        drawn=auroc,
        rank=3,
        about="area under the ROC curve, whatever the threshold",
        method="DeLong's or Obuchowski's, on the logit scale",
        over_seeds=estimation.auroc_of_seeds,
        compare=estimation.compare_aurocs,
    ),
    Metric(
        name="balanced_accuracy",
        title="balanced accuracy",
        compute=_of_tables(confusion.balanced_accuracy),
        interval=count_interval(confusion.balanced_accuracy),
        rank=7,
        about="mean of sensitivity and specificity",
        method="Jeffreys' prior",
        over_seeds=estimation.balanced_accuracy_of_seeds,
    ),
    Metric(
        name="sensitivity",
        title="sensitivity",
        compute=_of_tables(confusion.sensitivity),
        interval=recall_interval(confusion.sensitivity),
        needs="positive",
        rank=8,
        about="share of PNEUMONIA that was recognised; of subtypes the mean",
    ),
    Metric(
        name="specificity",
        title="specificity",
        compute=_of_tables(confusion.specificity),
        interval=recall_interval(confusion.specificity),
        needs="negative",
        rank=8,
        about="share of NORMAL that was recognised; of subtypes the mean",
    ),
    Metric(
        name="auprc",
        title="average precision",
        compute=auprc,
        interval=estimation.auprc_interval,
        drawn=auprc,
    ),
    Metric(
        name="f1",
        title="F1",
        compute=_of_tables(confusion.f1),
        interval=count_interval(confusion.f1),
    ),
    Metric(
        name="mcc",
        title="MCC",
        compute=_of_tables(confusion.mcc),
        interval=count_interval(confusion.mcc),
        range=(-1.0, 1.0),
    ),
    Metric(
        name="ece",
        title="ECE",
        compute=ece,
        interval=estimation.ece_interval,
        drawn=lambda each: each.bin_residuals,
        needs="any",
        higher_is_better=False,
    ),
    Metric(
        name="brier",
        title="Brier score",
        compute=brier,
        interval=estimation.brier_interval,
        drawn=brier,
        needs="any",
        range_of_several=(0.0, 2.0),
        higher_is_better=False,
    ),
)
METRICS = {metric.name: metric for metric in _ENTRIES}


def measure(predictions: Predictions) -> dict[str, float]:
    """Compute all metrics; 0 replaces what an absent class leaves undefined."""
    once = Resamples(predictions)
    return {name: float(metric.compute(once)[0]) for name, metric in METRICS.items()}


def estimates(predictions: Predictions, metrics: Mapping[str, Metric] = METRICS) -> dict[str, Estimate]:
    """Compute metrics with their 95 % intervals, by the methods that kept closest to it in simulations.

    Images of one patient are taken together. Where a metric needs a class that is absent, or the spread of a class with
    a single patient, the interval is the whole range. Coverage: docs/EVALUATION.md.
    """
    sample = Sample(predictions, metrics.values())
    return {name: Estimate(sample.value(metric), *sample.interval(metric)) for name, metric in metrics.items()}


def paired_bootstrap(first: Predictions, second: Predictions, metric: str, count: int = RESAMPLES) -> Interval:
    """Compute the 95 % interval of the first run's metric less the second's, on the same images in the same order.

    It is the whole range of the difference where the metric needs a class with fewer than two patients, and
    `unvaried_difference` where all draws are the same.

    Raises:
        ConfigError: They are not.
    """
    if first.paths != second.paths:
        raise ConfigError(
            "The two runs were tested on other images, or in another order, so that they cannot be compared image by "
            "image: name runs of one data set, and sort both by `by_path()`."
        )
    entry, known = METRICS[metric], Sample(first if first.patients else second, [])
    patients, reach = known.units(entry), float(np.ptp(entry.whole_range(known.classes)))
    if patients < 2:
        return -reach, reach

    def statistic(weights: Array) -> Array:
        return entry.compute(Resamples(first, weights)) - entry.compute(Resamples(second, weights))

    draws = bootstrap(statistic, first.label, count, clusters=known.clusters)
    low, high = percentiles(draws)
    return (low, high) if high - low >= RESIDUE else unvaried_difference(float(draws.mean()), patients, reach)
