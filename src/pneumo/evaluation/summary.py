"""A test in figures: what follows from its answers, each with a 95 % interval."""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot

import numpy as np
import numpy.typing as npt

from pneumo.evaluation.answers import Answers
from pneumo.evaluation.bootstrap import bootstrap_metrics, ece_interval, measure, of_shares, percentiles
from pneumo.evaluation.calibration import gaps
from pneumo.evaluation.intervals import Estimate, Interval, logit_interval, share_interval, wilson
from pneumo.evaluation.results import NO_IMAGE, SUBTYPES, TEST_METRICS, Results, confusion
from pneumo.evaluation.significance import auroc_interval, placements

_BOOTSTRAPPED = ("brier", "balanced_accuracy", "auprc", "f1", "mcc")


def summarise(
    label: npt.NDArray[np.int64],
    probability: npt.NDArray[np.float32],
    prediction: npt.NDArray[np.int64],
    subtypes: Sequence[str],
    margin: npt.NDArray[np.float64] | None = None,
) -> Results:
    """Give what results.json holds of a test beside its metrics: counts, intervals, sensitivity to each subtype.

    Where an interval would need a class or a subtype of which no image was tested, nothing is known, and it is the
    metric's whole range. The sensitivity to such a subtype is -1.

    Args:
        label: 1 is positive, shape (N,).
        probability: Of the positive class, (N,).
        prediction: As label, (N,).
        subtypes: bacterial, viral, or anything else for neither; N of them.
        margin: Log odds of the positive class, (N,), by which images are ranked; None: by the probability.
    """
    answers = Answers(probability.astype(np.float64), label == 1, prediction == 1, margin=margin)
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
    """Give each metric's 95 % interval by the method that kept closest to it in simulations: docs/EVALUATION.md."""
    positives, total = int(answers.positive.sum()), len(answers.positive)
    found = {name: (-1.0 if name == "mcc" else 0.0, 1.0) for name in TEST_METRICS}
    found["accuracy"] = wilson(int(answers.right.sum()), total)
    hits, quiet = answers.called[answers.positive], ~answers.called[~answers.positive]
    found["sensitivity"] = share_interval(int(hits.sum()), len(hits))
    found["specificity"] = share_interval(int(quiet.sum()), len(quiet))
    both = 0 < positives < total
    draws = bootstrap_metrics(answers, _BOOTSTRAPPED if both else ["brier"])
    found |= {name: percentiles(of_name) for name, of_name in draws.items()}
    values = measure(answers, np.ones((1, total)))
    found["ece"] = ece_interval(gaps(answers.probability, answers.positive), answers.positive)
    if both:
        found |= {
            name: from_shares(answers, name, found)
            for name in ("balanced_accuracy", "f1", "mcc")
            if np.ptp(draws[name]) == 0
        }
        found["auroc"] = auroc_interval(placements(answers.score, answers.positive))
        found["auprc"] = logit_interval(float(values["auprc"][0]), float(draws["auprc"].std(ddof=1)), positives)
    return found


def estimates(answers: Answers) -> dict[str, Estimate]:
    """Give the metrics of images of both classes with their intervals."""
    values = measure(answers, np.ones((1, len(answers.positive))))
    return {name: Estimate(float(values[name][0]), *interval) for name, interval in metric_intervals(answers).items()}


def from_shares(answers: Answers, name: str, found: dict[str, Interval]) -> Interval:
    """Give the interval of a metric that rises with sensitivity and specificity, put together from theirs.

    The bootstrap has none where each class got one answer only: it draws the same again and again. Source: as in
    `subtract`.
    """
    positives = int(answers.positive.sum())
    value = float(measure(answers, np.ones((1, len(answers.positive))))[name][0])
    known = (float(answers.called[answers.positive].mean()), 1 - float(answers.called[~answers.positive].mean()))

    def reach(end: int) -> float:
        ends = found["sensitivity"][end], found["specificity"][end]
        shares = ((ends[0], known[1]), (known[0], ends[1]))
        moved = [of_shares(*pair, positives, len(answers.positive) - positives)[name] - value for pair in shares]
        return hypot(*moved)

    return max(value - reach(0), -1.0 if name == "mcc" else 0.0), min(value + reach(1), 1.0)
