"""A test in figures: what follows from its answers, each with a 95 % interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pneumo.evaluation.answers import Answers
from pneumo.evaluation.bootstrap import Array, bootstrap, measure, measurer
from pneumo.evaluation.calibration import ece_interval, gaps
from pneumo.evaluation.clusters import class_sizes, precision_interval, proportion_interval
from pneumo.evaluation.counts import confusion_table, count_intervals
from pneumo.evaluation.intervals import Estimate, Interval, mean_interval, whole_range
from pneumo.evaluation.results import NO_IMAGE, SUBTYPES, TEST_METRICS, Results, confusion
from pneumo.evaluation.significance import auroc_interval, placements

_COUNTED = ("balanced_accuracy", "f1", "mcc")


def summarise(
    label: npt.NDArray[np.int64],
    probability: npt.NDArray[np.float32],
    prediction: npt.NDArray[np.int64],
    subtypes: Sequence[str],
    margin: npt.NDArray[np.float64] | None = None,
    patients: tuple[str, ...] = (),
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
        patients: Patient of each image; empty: every image is of another one.
    """
    answers = Answers(probability.astype(np.float64), label == 1, prediction == 1, margin=margin, patients=patients)
    results, clusters = confusion(label, prediction), answers.clusters
    for name, interval in metric_intervals(answers).items():
        results[f"test_{name}_ci_low"], results[f"test_{name}_ci_high"] = interval
    for subtype in SUBTYPES:
        chosen = np.array([subtype == other for other in subtypes], bool) & answers.positive
        called = answers.called[chosen]
        name = f"test_sensitivity_{subtype}"
        results[name] = float(called.mean()) if len(called) else NO_IMAGE
        results[f"{name}_ci_low"], results[f"{name}_ci_high"] = proportion_interval(called, clusters[chosen])
    apart = "test_auroc_bacterial_viral"  # two classes tell nothing of subtypes
    return results | {apart: NO_IMAGE, f"{apart}_ci_low": 0.0, f"{apart}_ci_high": 1.0}


def metric_intervals(answers: Answers) -> dict[str, Interval]:
    """Compute each metric's 95 % interval by the method that kept closest to it in simulations: docs/EVALUATION.md.

    Images of one patient are taken together: docs/EVALUATION.md#several-images-of-a-patient. Where a metric needs a
    class that is absent, or the spread of a class with a single patient, it is the whole range.
    """
    values = {name: float(value[0]) for name, value in measure(answers, np.ones((1, len(answers.positive)))).items()}
    label, clusters, right = answers.positive.astype(np.int64), answers.clusters, answers.right
    table = confusion_table(label, answers.called.astype(np.int64), 2)
    weigh, inside = measurer(answers, ("brier", "auprc")), gaps(answers.probability, answers.positive)
    patients, sizes = class_sizes(label, right, clusters, 2)

    def statistic(weights: Array) -> Array:
        metrics = weigh(weights)
        gap = weights @ inside / weights.sum(axis=1, keepdims=True)
        return np.column_stack((metrics["brier"], metrics["auprc"], gap))

    draws = bootstrap(statistic, answers.positive, clusters=clusters)
    found = {name: whole_range(name) for name in TEST_METRICS}
    found["accuracy"] = proportion_interval(right, clusters)
    found["sensitivity"] = proportion_interval(right[label == 1], clusters[label == 1])
    found["specificity"] = proportion_interval(right[label == 0], clusters[label == 0])
    found["brier"] = mean_interval(values["brier"], draws[:, 0], len(np.unique(clusters)))
    found["ece"] = ece_interval(answers.probability, answers.positive, draws[:, 2:], clusters)
    if min(patients):
        counted = count_intervals(table, sizes)
        found |= {name: counted[name] for name in _COUNTED}
    if min(patients) > 1:
        placed = placements(answers.score, answers.positive, clusters)
        found["auroc"] = auroc_interval(placed)
        found["auprc"] = precision_interval(values["auprc"], float(draws[:, 1].std(ddof=1)), [placed.residuals])
    return found


def estimates(answers: Answers) -> dict[str, Estimate]:
    """Give the metrics of images of both classes with their intervals."""
    values = measure(answers, np.ones((1, len(answers.positive))))
    return {name: Estimate(float(values[name][0]), *interval) for name, interval in metric_intervals(answers).items()}
