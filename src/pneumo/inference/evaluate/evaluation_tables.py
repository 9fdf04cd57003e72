"""Tables of an evaluation, for the terminal and the HTML page."""

from __future__ import annotations

from collections.abc import Mapping

from pneumo.common.text import format_probability
from pneumo.inference.evaluate.evaluation_results import EvaluationResults
from pneumo.inference.evaluate.paired_comparison import COMPARED
from pneumo.inference.evaluate.performance import Performance
from pneumo.metrics.definitions import METRICS
from pneumo.metrics.intervals import Estimate
from pneumo.metrics.probes import TOO_FEW_PATIENTS
from pneumo.metrics.summary import TITLES
from pneumo.reporting.assessment import Rows
from pneumo.reporting.generalization import GAP_METRICS, GeneralizationGap

INTERVAL = "95\u00a0% interval"
UNDEFINED = "undefined"
_MAIN = ("auroc", "balanced_accuracy", "sensitivity", "specificity")  # at the top of the page
_RANKED = ("auroc", "sensitivity", "specificity")  # of sites and subgroups
_COUNTED = "images / patients / positive"


def headline(evaluation: EvaluationResults) -> str:
    """Summarize the numbers of images, patients and classes as text."""
    overall, classes = evaluation.overall, evaluation.rules.classes
    label = overall.predictions.label
    counts = ", ".join(f"{int((label == index).sum()):,} {name}" for index, name in enumerate(classes))
    sites = f", {len(evaluation.sites)} sites" if evaluation.sites else ""
    return f"{overall.images:,} images of {overall.patients:,} patients ({counts}){sites}"


def tables(evaluation: EvaluationResults) -> dict[str, Rows]:
    """Return all tables by title, in display order; tables without rows are left out."""
    built = {
        "Sites": site_table(evaluation),
        "Metrics": metric_table(evaluation.overall),
        "Predictive values": predictive_table(evaluation.overall),
        "Operating points": point_table(evaluation.overall),
        "Calibration": calibration_table(evaluation.overall),
        "Internal and external images": gap_rows(evaluation.gap),
        "Subgroups": subgroup_table(evaluation),
        "Differences between subgroups": difference_table(evaluation),
        "Comparison on the same images": comparison_table(evaluation),
        "Doubtful predictions": fraction_table(evaluation),
        "Labels predicted from other properties": probe_table(evaluation),
        "Without near-duplicates of training images": leakage_table(evaluation),
    }
    return {title: rows for title, rows in built.items() if rows.rows}


def key_numbers(performance: Performance) -> list[tuple[str, str, str]]:
    """Return title, value and interval of the numbers at the top of the page."""
    metrics, own = performance.main_metrics, performance.predictive_values[0]
    named = {TITLES[name]: metrics.get(name) for name in _MAIN} | {"PPV": own.ppv, "NPV": own.npv}
    return [(title, *_pair(estimate)) for title, estimate in named.items()]


def site_table(evaluation: EvaluationResults) -> Rows:
    """Return the main metrics of each site, and of all images."""
    parts = [*evaluation.sites.values(), evaluation.overall] if evaluation.sites else []
    rows = []
    for part in parts:
        metrics = part.main_metrics
        counts = _counts(part.images, part.patients, part.positives)
        rows.append([part.name, counts, *(_cell(metrics.get(name)) for name in _RANKED)])
    return Rows(["site", _COUNTED, *(TITLES[name] for name in _RANKED)], rows)


def metric_table(performance: Performance) -> Rows:
    """Return all metrics and likelihood ratios with intervals."""
    rows = [[metric.title, *_pair(performance.metrics.get(name))] for name, metric in METRICS.items()]
    rows += [
        [f"{TITLES[name]}, positive against negative", *_pair(estimate)]
        for name, estimate in performance.binary_metrics.items()
    ]
    rows += [[f"AUROC, {name} against the rest", *_pair(area)] for name, area in performance.class_aurocs.items()]
    ratios = performance.ratios
    for name, ratio in (("LR+", ratios and ratios.positive), ("LR\u2212", ratios and ratios.negative)):
        rows.append([f"likelihood ratio, {name}", *_pair(ratio)])
    return Rows(["metric", "value", INTERVAL], rows)


def predictive_table(performance: Performance) -> Rows:
    """Return PPV and NPV at the set's own and at the stated prevalences."""
    rows = []
    for index, each in enumerate(performance.predictive_values):
        own = " (of these images)" if index == 0 else ""
        rows.append([f"{each.prevalence:.3g}{own}", _cell(each.ppv), _cell(each.npv)])
    return Rows(["prevalence", "PPV", "NPV"], rows)


def point_table(performance: Performance) -> Rows:
    """Return the sensitivity at required specificities and the reverse."""
    other = {"sensitivity": "specificity", "specificity": "sensitivity"}
    rows = [
        [
            f"{other[each.given]} at {100 * each.level:g}\u00a0% {each.given}",
            *_pair(each.value),
            format_probability(each.threshold),
        ]
        for each in performance.points
    ]
    return Rows(["operating point", "value", INTERVAL, "threshold"], rows)


def calibration_table(performance: Performance) -> Rows:
    """Return calibration measures with the value of a calibrated network."""
    calibration = performance.calibration
    named = {
        "intercept (calibration in the large)": (calibration.intercept, "0"),
        "slope": (calibration.slope, "1"),
        "observed / expected": (calibration.observed_expected, "1"),
        "log loss": (calibration.log_loss, ""),
    }
    return Rows(["calibration", "value", INTERVAL, "ideal"], [[n, *_pair(e), ideal] for n, (e, ideal) in named.items()])


def gap_rows(gap: GeneralizationGap | str) -> Rows:
    """Return the metrics on internal and external images and their drop."""
    if isinstance(gap, str):
        return Rows([], [])
    rows = [
        [title, *(_cell(each[name]) for each in (gap.validation_metrics, gap.test_metrics, gap.drop))]
        for name, title in GAP_METRICS.items()
    ]
    return Rows(["metric", *gap.sets, "drop"], rows)


def subgroup_table(evaluation: EvaluationResults) -> Rows:
    """Return AUROC, sensitivity and specificity of each subgroup; of many levels, of the largest."""
    rows = [
        [
            f"{group.factor}: {group.level}",
            _counts(group.images, group.patients, group.positives),
            *(_cell(group.estimates.get(name)) for name in _RANKED),
        ]
        for group in evaluation.subgroups.largest
    ]
    return Rows(["subgroup", _COUNTED, *(TITLES[name] for name in _RANKED)], rows)


def difference_table(evaluation: EvaluationResults) -> Rows:
    """Return the tests of each shown level against all other levels of its factor."""
    shown = {group[:2] for group in evaluation.subgroups.largest}
    rows = [
        [
            f"{test.factor}: {test.level}",
            TITLES[test.metric],
            f"{test.difference.value:+.3f}",
            f"{test.difference.low:+.3f} to {test.difference.high:+.3f}",
            _p(test.holm),
        ]
        for test in evaluation.subgroups.differences
        if test[:2] in shown
    ]
    return Rows(["subgroup minus all others", "metric", "difference", INTERVAL, "p (Holm)"], rows)


def comparison_table(evaluation: EvaluationResults) -> Rows:
    """Return the metrics of both networks, and their paired differences."""
    comparison = evaluation.comparison
    if comparison is None:
        return Rows([], [])
    rows = [
        [
            COMPARED[name],
            *(_cell(part.main_metrics.get(name)) for part in (evaluation.overall, comparison.other)),
            "{:+.3f}\n{:+.3f} to {:+.3f}".format(*paired.difference[:3]),
            _p(paired.holm),
        ]
        for name, paired in comparison.differences.items()
    ]
    return Rows(["metric", "this network", "other network", "difference", "p (Holm)"], rows)


def fraction_table(evaluation: EvaluationResults) -> Rows:
    """Return the fractions of doubtful predictions and the accuracy of those near the threshold."""
    fractions = evaluation.fractions
    named = {
        "uncertain (near the threshold)": fractions.uncertain,
        "accuracy of uncertain predictions": fractions.accuracy_uncertain,
        "accuracy of the others": fractions.accuracy_certain,
        "out of distribution": fractions.out_of_distribution,
    }
    return Rows(["fraction", "value", INTERVAL], _present(named))


def probe_table(evaluation: EvaluationResults) -> Rows:
    """Return the AUROC of labels predicted from each property alone."""
    rows = [
        [probe.name, *(_pair(probe.estimate) if probe.estimate else (UNDEFINED, TOO_FEW_PATIENTS))]
        for probe in evaluation.probes
    ]
    return Rows(["property", "AUROC (0.5 is chance)", INTERVAL], rows)


def leakage_table(evaluation: EvaluationResults) -> Rows:
    """Return the main metrics without near-duplicates of training images; empty if there are none."""
    leakage = evaluation.leakage
    without = None if isinstance(leakage, str) else leakage.metrics_without
    return Rows(["metric", "value", INTERVAL], _present({TITLES[n]: e for n, e in (without or {}).items()}))


def _present(named: Mapping[str, Estimate | None]) -> list[list[str]]:
    return [[name, *_pair(estimate)] for name, estimate in named.items() if estimate is not None]


def _pair(estimate: Estimate | None) -> tuple[str, str]:
    if estimate is None:
        return UNDEFINED, ""
    return f"{estimate.value:.3f}", f"{estimate.low:.3f} to {estimate.high:.3f}"


def _cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return UNDEFINED
    dash = "\u2013" if estimate.low >= 0 else " to "
    return f"{estimate.value:.3f}\n{estimate.low:.3f}{dash}{estimate.high:.3f}"


def _counts(images: int, patients: int, positives: int) -> str:
    return f"{images:,} / {patients:,} / {positives:,}"


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"
