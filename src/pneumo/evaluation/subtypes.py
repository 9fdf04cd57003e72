"""A test of normal, bacterial and viral in figures: macro averages, each with a 95 % interval."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numpy.linalg import norm
from scipy.special import log_expit

from pneumo.evaluation.answers import Answers
from pneumo.evaluation.bootstrap import Array, bootstrap, ece_interval, measure, percentiles
from pneumo.evaluation.calibration import gaps
from pneumo.evaluation.intervals import Interval, logit_interval, share_interval, wilson
from pneumo.evaluation.results import NO_IMAGE, SUBTYPES, TEST_METRICS, Results, confusion
from pneumo.evaluation.significance import auroc_interval, placements

_COUNTED = ("sensitivity", "specificity", "balanced_accuracy", "f1", "mcc")
_MACRO = ("auroc", "sensitivity", "specificity", "auprc", "f1")  # means over classes, one against the rest


def summarise_classes(
    label: npt.NDArray[np.int64],
    probability: npt.NDArray[np.float32],
    prediction: npt.NDArray[np.int64],
    margin: Array | None = None,
) -> Results:
    """Give what results.json holds of a test beside its metrics: counts, intervals, and figures of the subtypes.

    The sensitivity to a subtype is the share of its images that were called by its name. The AUROC of bacterial against
    viral is that of pneumonias only, by the share that viral has of the two probabilities. Intervals are made as in
    `pneumo.evaluation.summary`. Where a class was not tested nothing is known: an interval is the whole range.

    Args:
        label: 0 normal, 1 bacterial, 2 viral, (N,).
        probability: Of each, (N, 3).
        prediction: As label, (N,).
        margin: Log odds of each, (N, 3), by which images are ranked; None: by the probabilities.
    """
    results = confusion(label, prediction)
    whole = len(np.unique(label)) == probability.shape[1]
    if whole:
        values = measure_classes(label, probability, prediction, np.ones((1, len(label))), margin)
        draws = bootstrap(
            lambda weights: _stack(measure_classes(label, probability, prediction, weights, margin)), label
        )
    for number, name in enumerate(TEST_METRICS):  # of which the accuracy's and the ECE's are given below
        unknown = (-1.0 if name == "mcc" else 0.0, 1.0)
        interval = _interval(name, float(values[name][0]), draws[:, number], len(label)) if whole else unknown
        results[f"test_{name}_ci_low"], results[f"test_{name}_ci_high"] = interval
    if whole and all(np.ptp(prediction[label == of_class]) == 0 for of_class in np.unique(label)):
        for name, interval in _from_shares(label, prediction, probability.shape[1]).items():
            results[f"test_{name}_ci_low"], results[f"test_{name}_ci_high"] = interval
    right = label == prediction
    if whole:
        surest = probability.astype(np.float64).max(axis=1)
        results["test_ece_ci_low"], results["test_ece_ci_high"] = ece_interval(gaps(surest, right), label)
    results["test_accuracy_ci_low"], results["test_accuracy_ci_high"] = wilson(int(right.sum()), len(right))
    for number, subtype in enumerate(SUBTYPES, start=1):
        hits = right[label == number]
        name = f"test_sensitivity_{subtype}"
        results[name] = float(hits.mean()) if len(hits) else NO_IMAGE
        results[f"{name}_ci_low"], results[f"{name}_ci_high"] = share_interval(int(hits.sum()), len(hits))
    return results | _tell_apart(label, probability, margin)


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
    classes = np.arange(share.shape[1])
    truth, called = label[:, None] == classes, prediction[:, None] == classes
    score = share if margin is None else margin
    each = [measure(Answers(share[:, k], truth[:, k], called[:, k], margin=score[:, k]), weights) for k in classes]
    found = {name: np.mean([of_class[name] for of_class in each], axis=0) for name in _MACRO}
    total, right = weights.sum(1), label == prediction
    of_truth, of_called = weights @ truth, weights @ called
    spread = (total**2 - (of_truth**2).sum(1)) * (total**2 - (of_called**2).sum(1))
    agreement = total * (weights @ right) - (of_truth * of_called).sum(1)
    return {
        **found,
        "accuracy": weights @ right / total,
        "balanced_accuracy": found["sensitivity"],
        "mcc": agreement / np.sqrt(np.maximum(spread, 1)),  # 0 if every answer is the same
        "ece": np.abs(weights @ gaps(share.max(1), right)).sum(1) / total,
        "brier": weights @ ((share - truth) ** 2).sum(1) / total,
    }


def _interval(name: str, value: float, draws: Array, images: int) -> Interval:
    """Give a metric's interval as `pneumo.evaluation.summary.metric_intervals` does, by the bootstrap's deviation."""
    if name in ("auroc", "auprc"):
        return logit_interval(value, float(draws.std(ddof=1)), images)
    return percentiles(draws)


def _from_shares(label: npt.NDArray[np.int64], prediction: npt.NDArray[np.int64], classes: int) -> dict[str, Interval]:
    """Give the intervals of what follows from the answers where each class got one only, put together from Wilson's.

    The bootstrap draws the same again and again there. Each class in turn gives as many of its images to another answer
    as Wilson's interval of its share leaves open. Source: as in `subtract`.
    """
    truth, answer = np.divmod(np.arange(classes**2), classes)
    counts = np.bincount(label * classes + prediction, minlength=classes**2).astype(np.float64)
    tables = [counts]
    for full in np.flatnonzero(counts):
        total = int(counts[full])
        moved = total * (1 - wilson(total, total)[0])
        for other in np.flatnonzero((truth == truth[full]) & (answer != answer[full])):
            tables.append(counts.copy())
            tables[-1][[full, other]] += -moved, moved
    certain = np.eye(classes, dtype=np.float32)[answer]
    found = measure_classes(truth, certain, answer, np.stack(tables))
    intervals = {}
    for name in _COUNTED:
        value, *others = found[name]
        change = np.array(others).reshape(classes, classes - 1) - value  # one row for each class
        low, high = value - norm(change.min(1).clip(max=0)), value + norm(change.max(1).clip(min=0))
        intervals[name] = max(float(low), -1.0 if name == "mcc" else 0.0), min(float(high), 1.0)
    return intervals


def _stack(metrics: dict[str, Array]) -> Array:
    return np.stack([metrics[name] for name in TEST_METRICS], axis=1)


def _tell_apart(label: npt.NDArray[np.int64], probability: npt.NDArray[np.float32], margin: Array | None) -> Results:
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
    low, high = auroc_interval(placements(answers.score, viral))
    value = measure(answers, np.ones((1, len(viral))))["auroc"][0]
    return {name: float(value), f"{name}_ci_low": low, f"{name}_ci_high": high}
