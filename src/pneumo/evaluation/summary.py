"""A test in figures: what follows from its answers, each with a 95 % interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pneumo.evaluation.answers import Answers
from pneumo.evaluation.bootstrap import bootstrap_metrics, measure, percentiles
from pneumo.evaluation.intervals import Estimate, Interval, wilson
from pneumo.evaluation.results import NO_IMAGE, SUBTYPES, TEST_METRICS, Results, confusion

_ONE_CLASS = ("accuracy", "ece", "brier")  # those that mean something where a class is absent


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
        results[f"{name}_ci_low"], results[f"{name}_ci_high"] = _share(called)
    return results


def metric_intervals(answers: Answers) -> dict[str, Interval]:
    """Give each metric's 95 % interval: Wilson's of shares of images, the bootstrap's of the others.

    docs/EVALUATION.md has the coverage that was measured, from which this choice follows.
    """
    shares = {
        "accuracy": answers.right,
        "sensitivity": answers.called[answers.positive],
        "specificity": ~answers.called[~answers.positive],
    }
    both = answers.positive.any() and not answers.positive.all()
    known = [name for name in TEST_METRICS if name not in shares and (both or name in _ONE_CLASS)]
    draws = bootstrap_metrics(answers, known)
    found = {name: (-1.0 if name == "mcc" else 0.0, 1.0) for name in TEST_METRICS}
    found |= {name: _share(hits) for name, hits in shares.items()}
    found |= {name: percentiles(draws[name]) for name in known}
    error = float(measure(answers, np.ones((1, len(answers.positive))))["ece"][0])
    low, high = found["ece"]
    found["ece"] = (max(0.0, 2 * error - high), max(0.0, 2 * error - low))
    return found


def estimates(answers: Answers) -> dict[str, Estimate]:
    """Give the metrics of images of both classes with their intervals."""
    values = measure(answers, np.ones((1, len(answers.positive))))
    return {name: Estimate(float(values[name][0]), *interval) for name, interval in metric_intervals(answers).items()}


def _share(hits: npt.NDArray[np.bool_]) -> Interval:
    return wilson(int(hits.sum()), len(hits)) if len(hits) else (0.0, 1.0)
