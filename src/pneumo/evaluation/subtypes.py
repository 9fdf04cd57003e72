"""A test of normal, bacterial and viral in figures: macro averages, each with a 95 % interval."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import log_expit

from pneumo.evaluation.answers import Answers
from pneumo.evaluation.bootstrap import Array, bootstrap, measure
from pneumo.evaluation.calibration import ece_interval, gaps
from pneumo.evaluation.clusters import (
    Clusters,
    area_widening,
    class_sizes,
    number_clusters,
    precision_interval,
    proportion_interval,
)
from pneumo.evaluation.counts import confusion_table, count_intervals, count_metrics
from pneumo.evaluation.intervals import Interval, logit_interval, mean_interval, whole_range
from pneumo.evaluation.results import NO_IMAGE, SUBTYPES, TEST_METRICS, Results, confusion
from pneumo.evaluation.significance import auroc_interval, placements

_COUNTED = ("sensitivity", "specificity", "balanced_accuracy", "f1", "mcc")
_RANKED = ("auroc", "auprc")  # means over classes, one against the rest


def summarise_classes(
    label: npt.NDArray[np.int64],
    probability: npt.NDArray[np.float32],
    prediction: npt.NDArray[np.int64],
    margin: Array | None = None,
    patients: tuple[str, ...] = (),
) -> Results:
    """Give what results.json holds of a test beside its metrics: counts, intervals, and figures of the subtypes.

    The sensitivity to a subtype is the share of its images that were called by its name. The AUROC of bacterial against
    viral is that of pneumonias only, by the share that viral has of the two probabilities. Intervals are made as in
    `pneumo.evaluation.summary`.

    Args:
        label: 0 normal, 1 bacterial, 2 viral, (N,).
        probability: Of each, (N, 3).
        prediction: As label, (N,).
        margin: Log odds of each, (N, 3), by which images are ranked; None: by the probabilities.
        patients: Patient of each image; empty: every image is of another one.
    """
    results, right = confusion(label, prediction), label == prediction
    clusters = number_clusters(patients) if patients else np.arange(len(label))
    for name, interval in class_intervals(label, probability, prediction, margin, clusters).items():
        results[f"test_{name}_ci_low"], results[f"test_{name}_ci_high"] = interval
    for number, subtype in enumerate(SUBTYPES, start=1):
        hits = right[label == number]
        name = f"test_sensitivity_{subtype}"
        results[name] = float(hits.mean()) if len(hits) else NO_IMAGE
        results[f"{name}_ci_low"], results[f"{name}_ci_high"] = proportion_interval(hits, clusters[label == number])
    return results | _tell_apart(label, probability, margin, clusters)


def class_intervals(
    label: npt.NDArray[np.int64],
    probability: npt.NDArray[np.float32],
    prediction: npt.NDArray[np.int64],
    margin: Array | None = None,
    clusters: Clusters | None = None,
) -> dict[str, Interval]:
    """Compute the 95 % interval of each of TEST_METRICS; see `pneumo.evaluation.summary.metric_intervals`."""
    clusters = np.arange(len(label)) if clusters is None else clusters
    classes, right = probability.shape[1], label == prediction
    table = confusion_table(label, prediction, classes)
    values = measure_classes(label, probability, prediction, np.ones((1, len(label))), margin)
    surest, (patients, sizes) = probability.max(axis=1).astype(np.float64), class_sizes(label, right, clusters, classes)
    inside = gaps(surest, right)

    def statistic(weights: Array) -> Array:
        metrics = measure_classes(label, probability, prediction, weights, margin)
        gap = weights @ inside / weights.sum(axis=1, keepdims=True)
        return np.column_stack((metrics["brier"], *(metrics[name] for name in _RANKED), gap))

    draws = bootstrap(statistic, label, clusters=clusters)
    found = {name: whole_range(name, classes) for name in TEST_METRICS}
    found["accuracy"] = proportion_interval(right, clusters)
    found["brier"] = mean_interval(float(values["brier"][0]), draws[:, 0], len(np.unique(clusters)), top=2.0)
    found["ece"] = ece_interval(surest, right, draws[:, 1 + len(_RANKED) :], clusters)
    if min(patients):
        counted = count_intervals(table, sizes)
        found |= {name: counted[name] for name in _COUNTED}
    if min(patients) > 1:
        area, precision = (float(each) for each in draws[:, 1 : 1 + len(_RANKED)].std(axis=0, ddof=1))
        score = probability.astype(np.float64) if margin is None else margin
        placed = [placements(score[:, k], label == k, clusters).residuals for k in range(classes)]
        found["auroc"] = logit_interval(float(values["auroc"][0]), area * area_widening(placed), min(patients))
        found["auprc"] = precision_interval(float(values["auprc"][0]), precision, placed)
    return found


def measure_classes(
    label: npt.NDArray[np.int64],
    probability: npt.NDArray[np.float32],
    prediction: npt.NDArray[np.int64],
    weights: Array,
    margin: Array | None = None,
) -> dict[str, Array]:
    """Give the metrics of images that count several times, or not at all, as `pneumo.evaluation.metrics` defines them.

    Args:
        label: From 0, (N,).
        probability: (N, classes).
        prediction: As label, (N,).
        weights: How often each image counts, (R, N).
        margin: As in `summarise_classes`.

    Returns:
        (R,) for each of TEST_METRICS.
    """
    share = probability.astype(np.float64)
    number = share.shape[1]
    classes = np.arange(number)
    truth, called = label[:, None] == classes, prediction[:, None] == classes
    score = share if margin is None else margin
    each = [measure(Answers(share[:, k], truth[:, k], called[:, k], margin=score[:, k]), weights) for k in classes]
    tables = weights @ (label * number + prediction == np.arange(number**2)[:, None]).T
    total = weights.sum(1)
    return {
        **{name: np.mean([of_class[name] for of_class in each], axis=0) for name in _RANKED},
        **count_metrics(tables.reshape(-1, number, number)),
        "ece": np.abs(weights @ gaps(share.max(1), label == prediction)).sum(1) / total,
        "brier": weights @ ((share - truth) ** 2).sum(1) / total,
    }


def _tell_apart(
    label: npt.NDArray[np.int64], probability: npt.NDArray[np.float32], margin: Array | None, clusters: Clusters
) -> Results:
    """Give the AUROC of bacterial against viral, of the images that are one of them."""
    name = "test_auroc_bacterial_viral"
    ill = label > 0
    viral = label[ill] == 2
    if viral.all() or not viral.any():
        return {name: NO_IMAGE, f"{name}_ci_low": 0.0, f"{name}_ci_high": 1.0}
    pair = probability[ill, 1:].astype(np.float64)
    share = pair[:, 1] / np.maximum(pair.sum(1), np.finfo(np.float64).tiny)
    odds = None if margin is None else np.subtract(*log_expit(margin[ill, :0:-1]).T)  # of viral, by both logarithms
    answers = Answers(share, viral, share > 0.5, margin=odds)
    low, high = auroc_interval(placements(answers.score, viral, clusters[ill]))
    value = measure(answers, np.ones((1, len(viral))))["auroc"][0]
    return {name: float(value), f"{name}_ci_low": low, f"{name}_ci_high": high}
