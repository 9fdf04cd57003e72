"""Metric definitions: name, title, function and confidence interval of each metric.

Results store `test_NAME`, `test_NAME_ci_low` and `test_NAME_ci_high`. Training and validation log `train/NAME` and
`val/NAME`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from pneumo.errors import ConfigError
from pneumo.metrics import confusion, estimation
from pneumo.metrics.bootstrap import RESAMPLES, Resamples, bootstrap, percentiles
from pneumo.metrics.confusion import divide
from pneumo.metrics.estimation import Compute, Metric, Sample, count_interval, recall_interval
from pneumo.metrics.intervals import ROUNDING_ERROR, Array, Estimate, Interval, zero_variance_difference
from pneumo.metrics.predictions import Predictions


def auroc(resamples: Resamples) -> Array:
    """Compute the area under the ROC curve, (R,); ties count one half."""
    areas = []
    for true, false in resamples.ranked:
        pairs = np.einsum("rt,rt->r", np.cumsum(true, axis=1) - true / 2, false)  # positive ranks higher
        areas.append(divide(pairs, true.sum(axis=1) * false.sum(axis=1)))
    return np.asarray(np.mean(areas, axis=0))


def auprc(resamples: Resamples) -> Array:
    """Compute the average precision, (R,); images with equal scores share one threshold."""
    precisions = []
    for true, false in resamples.ranked:
        detected = np.cumsum(true, axis=1)
        precision = detected / np.maximum(detected + np.cumsum(false, axis=1), 1)
        precisions.append(divide(np.einsum("rt,rt->r", true, precision), true.sum(axis=1)))
    return np.asarray(np.mean(precisions, axis=0))


def ece(resamples: Resamples) -> Array:
    """Compute the expected calibration error, (R,).

    Source: C. Guo et al., On Calibration of Modern Neural Networks, 2017, equation 3.
    """
    error: Array = np.abs(resamples.bin_residuals).sum(axis=1)
    return error


def brier(resamples: Resamples) -> Array:
    """Compute the mean squared error of probabilities, (R,); with three or more classes, summed over classes."""
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


_DEFINITIONS = (
    Metric(
        name="accuracy",
        title="accuracy",
        compute=_of_tables(confusion.accuracy),
        interval=estimation.proportion_interval,
        needs="any",
        rank=0,
        about="fraction of test images whose predicted class is the true class",
        method="Wilson interval",
        over_seeds=estimation.mean_accuracy_interval,
        compare=estimation.compare_accuracies,
    ),
    Metric(
        name="auroc",
        title="AUROC",
        compute=auroc,
        interval=estimation.auroc_interval,
        bootstrap_statistic=auroc,
        rank=3,
        about="area under the ROC curve, independent of the threshold",
        method="DeLong or Obuchowski, on the logit scale",
        over_seeds=estimation.mean_auroc_interval,
        compare=estimation.compare_aurocs,
    ),
    Metric(
        name="balanced_accuracy",
        title="balanced accuracy",
        compute=_of_tables(confusion.balanced_accuracy),
        interval=count_interval(confusion.balanced_accuracy),
        rank=7,
        about="mean of sensitivity and specificity; with three or more classes, mean recall",
        method="posterior under the Jeffreys prior",
        over_seeds=estimation.mean_balanced_accuracy_interval,
    ),
    Metric(
        name="sensitivity",
        title="sensitivity",
        compute=_of_tables(confusion.sensitivity),
        interval=recall_interval(confusion.sensitivity),
        needs="positive",
        rank=8,
        about="fraction of PNEUMONIA images predicted as PNEUMONIA; with three or more classes, mean over them",
    ),
    Metric(
        name="specificity",
        title="specificity",
        compute=_of_tables(confusion.specificity),
        interval=recall_interval(confusion.specificity),
        needs="negative",
        rank=8,
        about="fraction of NORMAL images predicted as NORMAL; with three or more classes, mean over them",
    ),
    Metric(
        name="auprc",
        title="average precision",
        compute=auprc,
        interval=estimation.auprc_interval,
        bootstrap_statistic=auprc,
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
        bootstrap_statistic=lambda resamples: resamples.bin_residuals,
        needs="any",
        higher_is_better=False,
    ),
    Metric(
        name="brier",
        title="Brier score",
        compute=brier,
        interval=estimation.brier_interval,
        bootstrap_statistic=brier,
        needs="any",
        multiclass_range=(0.0, 2.0),
        higher_is_better=False,
    ),
)
METRICS = {metric.name: metric for metric in _DEFINITIONS}


def measure(predictions: Predictions) -> dict[str, float]:
    """Compute all metrics; metrics that are undefined because a class is absent are 0."""
    original = Resamples(predictions)
    return {name: float(metric.compute(original)[0]) for name, metric in METRICS.items()}


def estimates(predictions: Predictions, metrics: Mapping[str, Metric] = METRICS) -> dict[str, Estimate]:
    """Compute metrics with 95 % confidence intervals, by the methods with the best coverage in simulations.

    Images of one patient form a cluster. The interval is the whole range if a required class is absent. It is also the
    whole range if the method needs the variance within a class that has a single patient. Coverage: docs/APPENDIX.md.
    """
    sample = Sample(predictions, metrics.values())
    return {name: Estimate(sample.value(metric), *sample.interval(metric)) for name, metric in metrics.items()}


def paired_bootstrap(first: Predictions, second: Predictions, metric: str, count: int = RESAMPLES) -> Interval:
    """Compute the 95 % confidence interval of the difference of a metric, first run minus second, on the same images.

    The interval is the whole range of the difference if a class that the metric requires has fewer than two patients.
    It is `zero_variance_difference` if all draws are equal.

    Raises:
        ConfigError: The images or their order differ.
    """
    if first.paths != second.paths:
        raise ConfigError(
            "A paired comparison requires the same test images in the same order in both runs, but they differ. Use "
            "runs of one data set and sort both predictions with `by_path()`."
        )
    definition, sample = METRICS[metric], Sample(first if first.patients else second, [])
    patients, bound = sample.units(definition), float(np.ptp(definition.whole_range(sample.classes)))
    if patients < 2:
        return -bound, bound

    def statistic(weights: Array) -> Array:
        return definition.compute(Resamples(first, weights)) - definition.compute(Resamples(second, weights))

    draws = bootstrap(statistic, first.label, count, clusters=sample.clusters)
    low, high = percentiles(draws)
    if high - low < ROUNDING_ERROR:
        return zero_variance_difference(float(draws.mean()), patients, bound)
    return low, high
