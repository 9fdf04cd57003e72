"""A test of normal, bacterial and viral in figures: macro averages, each with a 95 % interval."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pneumo.evaluation.answers import Answers
from pneumo.evaluation.bootstrap import Array, bootstrap, measure
from pneumo.evaluation.calibration import ece_interval, gaps
from pneumo.evaluation.counts import confusion_table, count_intervals, count_metrics
from pneumo.evaluation.intervals import Interval, logit_interval, mean_interval, share_interval, whole_range, wilson
from pneumo.evaluation.results import NO_IMAGE, SUBTYPES, TEST_METRICS, Results, confusion
from pneumo.evaluation.significance import auroc_interval, placements

_COUNTED = ("sensitivity", "specificity", "balanced_accuracy", "f1", "mcc")
_RANKED = ("auroc", "auprc")  # means over classes, one against the rest


def summarise_classes(
    label: npt.NDArray[np.int64], probability: npt.NDArray[np.float32], prediction: npt.NDArray[np.int64]
) -> Results:
    """Give what results.json holds of a test beside its metrics: counts, intervals, and figures of the subtypes.

    The sensitivity to a subtype is the share of its images that were called by its name. The AUROC of bacterial against
    viral is that of pneumonias only, by the share that viral has of the two probabilities. Intervals are made as in
    `pneumo.evaluation.summary`.

    Args:
        label: 0 normal, 1 bacterial, 2 viral, (N,).
        probability: Of each, (N, 3).
        prediction: As label, (N,).
    """
    results, right = confusion(label, prediction), label == prediction
    for name, interval in class_intervals(label, probability, prediction).items():
        results[f"test_{name}_ci_low"], results[f"test_{name}_ci_high"] = interval
    for number, subtype in enumerate(SUBTYPES, start=1):
        hits = right[label == number]
        name = f"test_sensitivity_{subtype}"
        results[name] = float(hits.mean()) if len(hits) else NO_IMAGE
        results[f"{name}_ci_low"], results[f"{name}_ci_high"] = share_interval(int(hits.sum()), len(hits))
    return results | _tell_apart(label, probability)


def class_intervals(
    label: npt.NDArray[np.int64], probability: npt.NDArray[np.float32], prediction: npt.NDArray[np.int64]
) -> dict[str, Interval]:
    """Compute the 95 % interval of each of TEST_METRICS; see `pneumo.evaluation.summary.metric_intervals`."""
    classes, right = probability.shape[1], label == prediction
    table = confusion_table(label, prediction, classes)
    values = measure_classes(label, probability, prediction, np.ones((1, len(label))))
    surest, smallest = probability.max(axis=1).astype(np.float64), int(table.sum(axis=1).min())
    inside = gaps(surest, right)

    def statistic(weights: Array) -> Array:
        metrics = measure_classes(label, probability, prediction, weights)
        gap = weights @ inside / weights.sum(axis=1, keepdims=True)
        return np.column_stack((metrics["brier"], *(metrics[name] for name in _RANKED), gap))

    draws = bootstrap(statistic, label)
    found = {name: whole_range(name, classes) for name in TEST_METRICS}
    found["accuracy"] = wilson(int(right.sum()), len(right))
    found["brier"] = mean_interval(float(values["brier"][0]), draws[:, 0], len(right), top=2.0)
    found["ece"] = ece_interval(surest, right, draws[:, 1 + len(_RANKED) :])
    if smallest:
        counted = count_intervals(table)
        found |= {name: counted[name] for name in _COUNTED}
    if smallest > 1:
        deviations = draws[:, 1 : 1 + len(_RANKED)].std(axis=0, ddof=1)
        for name, deviation in zip(_RANKED, deviations, strict=True):
            found[name] = logit_interval(float(values[name][0]), float(deviation), smallest)
    return found


def measure_classes(
    label: npt.NDArray[np.int64],
    probability: npt.NDArray[np.float32],
    prediction: npt.NDArray[np.int64],
    weights: Array,
) -> dict[str, Array]:
    """Give the metrics of images that count several times, or not at all, as `pneumo.evaluation.metrics` defines them.

    Args:
        label: From 0, (N,).
        probability: (N, classes).
        prediction: As label, (N,).
        weights: How often each image counts, (R, N).

    Returns:
        (R,) for each of TEST_METRICS.
    """
    share = probability.astype(np.float64)
    number = share.shape[1]
    classes = np.arange(number)
    truth, called = label[:, None] == classes, prediction[:, None] == classes
    each = [measure(Answers(share[:, k], truth[:, k], called[:, k]), weights) for k in classes]
    tables = weights @ (label * number + prediction == np.arange(number**2)[:, None]).T
    total = weights.sum(1)
    return {
        **{name: np.mean([of_class[name] for of_class in each], axis=0) for name in _RANKED},
        **count_metrics(tables.reshape(-1, number, number)),
        "ece": np.abs(weights @ gaps(share.max(1), label == prediction)).sum(1) / total,
        "brier": weights @ ((share - truth) ** 2).sum(1) / total,
    }


def _tell_apart(label: npt.NDArray[np.int64], probability: npt.NDArray[np.float32]) -> Results:
    """Give the AUROC of bacterial against viral, of the images that are one of them."""
    name = "test_auroc_bacterial_viral"
    ill = label > 0
    viral = label[ill] == 2
    if viral.all() or not viral.any():
        return {name: NO_IMAGE, f"{name}_ci_low": 0.0, f"{name}_ci_high": 1.0}
    pair = probability[ill, 1:].astype(np.float64)
    share = pair[:, 1] / np.maximum(pair.sum(1), np.finfo(np.float64).tiny)
    answers = Answers(share, viral, share > 0.5)
    low, high = auroc_interval(placements(share, viral))
    value = measure(answers, np.ones((1, len(viral))))["auroc"][0]
    return {name: float(value), f"{name}_ci_low": low, f"{name}_ci_high": high}
