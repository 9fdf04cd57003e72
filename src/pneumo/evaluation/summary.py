"""A test in figures: what follows from its answers, each with a 95 % interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pneumo.evaluation.answers import Answers
from pneumo.evaluation.bootstrap import Array, bootstrap, measure
from pneumo.evaluation.calibration import ece_interval, gaps
from pneumo.evaluation.counts import confusion_table, count_intervals
from pneumo.evaluation.intervals import (
    Estimate,
    Interval,
    logit_interval,
    mean_interval,
    share_interval,
    whole_range,
    wilson,
)
from pneumo.evaluation.results import NO_IMAGE, SUBTYPES, TEST_METRICS, Results, confusion
from pneumo.evaluation.significance import auroc_interval, placements

_COUNTED = ("balanced_accuracy", "f1", "mcc")


def summarise(
    label: npt.NDArray[np.int64],
    probability: npt.NDArray[np.float32],
    prediction: npt.NDArray[np.int64],
    subtypes: Sequence[str],
) -> Results:
    """Give what results.json holds of a test beside its metrics: counts, intervals, sensitivity to each subtype.

    Where an interval would need a class or a subtype of which no image was tested, nothing is known, and it is the
    metric's whole range. The sensitivity to such a subtype is -1.

    Args:
        label: 1 is positive, shape (N,).
        probability: Of the positive class, (N,).
        prediction: As label, (N,).
        subtypes: bacterial, viral, or anything else for neither; N of them.
    """
    answers = Answers(probability.astype(np.float64), label == 1, prediction == 1)
    results = confusion(label, prediction)
    for name, interval in metric_intervals(answers).items():
        results[f"test_{name}_ci_low"], results[f"test_{name}_ci_high"] = interval
    for subtype in SUBTYPES:
        called = answers.called[np.array([subtype == other for other in subtypes], bool) & answers.positive]
        name = f"test_sensitivity_{subtype}"
        results[name] = float(called.mean()) if len(called) else NO_IMAGE
        results[f"{name}_ci_low"], results[f"{name}_ci_high"] = share_interval(int(called.sum()), len(called))
    apart = "test_auroc_bacterial_viral"  # two classes tell nothing of subtypes
    return results | {apart: NO_IMAGE, f"{apart}_ci_low": 0.0, f"{apart}_ci_high": 1.0}


def metric_intervals(answers: Answers) -> dict[str, Interval]:
    """Compute each metric's 95 % interval by the method that kept closest to it in simulations: docs/EVALUATION.md.

    Where a metric needs a class that is absent, or the spread of a class with a single image, it is the whole range.
    """
    values = {name: float(value[0]) for name, value in measure(answers, np.ones((1, len(answers.positive)))).items()}
    table = confusion_table(answers.positive.astype(np.int64), answers.called.astype(np.int64), 2)
    smallest, inside = int(table.sum(axis=1).min()), gaps(answers.probability, answers.positive)

    def statistic(weights: Array) -> Array:
        metrics = measure(answers, weights)
        gap = weights @ inside / weights.sum(axis=1, keepdims=True)
        return np.column_stack((metrics["brier"], metrics["auprc"], gap))

    draws = bootstrap(statistic, answers.positive)
    found = {name: whole_range(name) for name in TEST_METRICS}
    found["accuracy"] = wilson(int(answers.right.sum()), len(answers.right))
    found["sensitivity"] = share_interval(int(table[1, 1]), int(table[1].sum()))
    found["specificity"] = share_interval(int(table[0, 0]), int(table[0].sum()))
    found["brier"] = mean_interval(values["brier"], draws[:, 0], len(answers.right))
    found["ece"] = ece_interval(answers.probability, answers.positive, draws[:, 2:])
    if smallest:
        counted = count_intervals(table)
        found |= {name: counted[name] for name in _COUNTED}
    if smallest > 1:
        found["auroc"] = auroc_interval(placements(answers.score, answers.positive))
        found["auprc"] = logit_interval(values["auprc"], float(draws[:, 1].std(ddof=1)), int(table[1].sum()))
    return found


def estimates(answers: Answers) -> dict[str, Estimate]:
    """Give the metrics of images of both classes with their intervals."""
    values = measure(answers, np.ones((1, len(answers.positive))))
    return {name: Estimate(float(values[name][0]), *interval) for name, interval in metric_intervals(answers).items()}
