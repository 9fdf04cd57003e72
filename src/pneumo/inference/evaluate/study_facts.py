"""Facts of an evaluation for reporting checklists."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from pneumo.common import __version__
from pneumo.common.text import count_noun, escape_line, format_probability
from pneumo.data.corruptions import CORRUPTIONS
from pneumo.inference.evaluate.caveats import MIN_IMAGES, assess
from pneumo.inference.evaluate.evaluation_results import EvaluationResults
from pneumo.inference.evaluate.performance import Performance
from pneumo.inference.evaluate.reference import Reference
from pneumo.metrics.definitions import METRICS
from pneumo.metrics.intervals import Estimate
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.subgroups import Subgroup
from pneumo.metrics.summary import count_outcomes
from pneumo.reporting.generalization import GAP_METRICS, describe_gap

_MAX_LEVELS = 12  # of a column in the characteristics
_MAIN = ("auroc", "sensitivity", "specificity")


def collect_facts(evaluation: EvaluationResults) -> dict[str, str]:
    """Return the facts that an evaluation knows, by key of `pneumo.inference.evaluate.checklist.FACTS`."""
    facts: dict[str, str] = {}
    sources: Sequence[Callable[[EvaluationResults], Mapping[str, str]]] = (
        _data,
        _network,
        _methods,
        _results,
        _internal,
        _robustness,
    )
    for source in sources:
        facts |= {name: text.rstrip(".") for name, text in source(evaluation).items() if text}
    return facts


def _data(evaluation: EvaluationResults) -> dict[str, str]:
    cohort, overall = evaluation.cohort, evaluation.overall
    unknown = cohort.unknown_patients
    files = len(cohort.images) + len(cohort.unreadable)
    skipped = Counter(reason for _, reason in cohort.skipped)
    return {
        "data": escape_line(cohort.name),
        "sites": f"{len(evaluation.sites)} sites: {', '.join(evaluation.sites)}" if evaluation.sites else "1 site",
        "images": f"{overall.images:,}",
        "patients": f"{overall.patients:,}",
        "class_counts": _class_counts(overall.predictions),
        "flow": f"{files + len(cohort.skipped):,} entries: {len(cohort.skipped):,} not used, "
        f"{len(cohort.unreadable):,} unreadable, {overall.images:,} evaluated",
        "unreadable": f"{count_noun(len(cohort.unreadable), 'unreadable file')} left out"
        if cohort.unreadable
        else "No file was unreadable",
        "skipped": "; ".join(f"{count:,} entries not used ({reason})" for reason, count in skipped.most_common(5)),
        "missing": f"{unknown:,} images without a known patient, each counted as one patient" if unknown else "",
        "labels": "Labels were extracted from reports" if evaluation.mined_labels else "",
        "characteristics": "; ".join(filter(None, (_levels(evaluation, name) for name in cohort.extra_columns))),
    }


def _levels(evaluation: EvaluationResults, column: str) -> str:
    """Count the values of a column; empty if there are too many."""
    groups = [group for group in evaluation.subgroups.groups if group.factor == column]
    if groups:
        counts = {group.level: group.images for group in groups}
    else:
        counts = dict(Counter(value or "unknown" for value in evaluation.cohort.column(column)).most_common())
    if len(counts) > _MAX_LEVELS:
        return ""
    return f"{column}: {', '.join(f'{escape_line(level)} {count:,}' for level, count in counts.items())}"


def _class_counts(predictions: Predictions) -> str:
    label = predictions.label
    return ", ".join(f"{int((label == index).sum()):,} {name}" for index, name in enumerate(predictions.classes))


def _network(evaluation: EvaluationResults) -> dict[str, str]:
    rules, reference = evaluation.rules, evaluation.reference
    facts = {
        "model": f"{rules.name} with the classes {', '.join(rules.classes)}",
        "preprocessing": f"Greyscale of 8 bits, {rules.input_format.describe()}",
        "checkpoint": evaluation.checkpoint,
        "software": f"pneumo {__version__}, Python {platform.python_version()}",
        "threshold": format_probability(rules.threshold) if rules.positive_class is not None else "",
        "updating": evaluation.adaptation,
    }
    if evaluation.adaptation:
        facts["threshold_origin"] = "selected on labelled images of another site"
    if isinstance(reference, Reference) and (results := reference.results):
        facts |= {
            "training": f"{results['optimizer']}, {results['epochs']} epochs, batch size {results['batch_size']}, "
            f"experiment {results['experiment']}",
            "training_data": f"Trained on {results['data']} with the split {results['split']}",
            "model_selection": f"Epoch {results['best_epoch']} of {results['epochs']} selected on validation images",
        }
        rule = results["threshold_rule"]
        origin = (
            "fixed before training" if rule in ("likeliest", "fixed") else f"selected on validation images by {rule}"
        )
        facts.setdefault("threshold_origin", origin)
    return facts


def _methods(evaluation: EvaluationResults) -> dict[str, str]:
    factors = dict.fromkeys(group.factor for group in evaluation.subgroups.groups)
    curves = evaluation.overall.predictions.has_both_classes
    compared = "Networks were compared on the same images, with patients as clusters and the Holm correction"
    return {
        "metric_names": ", ".join(metric.title for metric in METRICS.values())
        + ", likelihood ratios, PPV, NPV, calibration intercept and slope, net benefit",
        "interval_methods": "95 % intervals with patients as clusters: Wilson for proportions, Obuchowski for the "
        "AUROC, cluster-robust regression for calibration, a bootstrap over patients for the rest",
        "comparison_method": compared if evaluation.comparison is not None else "",
        "subgroup_method": f"Subgroups by {', '.join(factors)}; each level against all others, Holm correction"
        if factors
        else "",
        "plots": ("ROC curve, decision curve, " if curves else "")
        + "reliability plot, score distributions"
        + (", subgroups" if factors else ""),
    }


def _results(evaluation: EvaluationResults) -> dict[str, str]:
    overall, fractions = evaluation.overall, evaluation.fractions
    uncertain = "" if fractions.uncertain is None else _percent(fractions.uncertain.value)
    calibration, values = overall.calibration, overall.predictive_values
    counts = count_outcomes(overall.predictions.label, overall.predictions.predicted)
    cells = [f"{kind} {sign}" for kind in ("true", "false") for sign in ("positives", "negatives")]
    measures = {"calibration intercept": calibration.intercept, "slope": calibration.slope}
    measures["observed / expected"] = calibration.observed_expected
    ratios = {} if overall.ratios is None else {"LR+": overall.ratios.positive, "LR\u2212": overall.ratios.negative}
    return {
        "cross_table": ", ".join(f"{counts[f'test_{cell}'.replace(' ', '_')]:,} {cell}" for cell in cells),
        "metrics": _join({METRICS[name].title: estimate for name, estimate in overall.metrics.items()}),
        "likelihood_ratios": _join(ratios),
        "predictive_values": "; ".join(
            f"at a prevalence of {each.prevalence:.3g}: {_join({'PPV': each.ppv, 'NPV': each.npv})}" for each in values
        ).capitalize(),
        "calibration": _join(measures),
        "decision_curve": "See the figure of the decision curve" if overall.predictions.has_both_classes else "",
        "site_metrics": "; ".join(f"{name}: {_main(part)}" for name, part in evaluation.sites.items()),
        "subgroups": "; ".join(map(_describe_group, evaluation.subgroups.largest)),
        "uncertain": uncertain
        and f"{uncertain} of the predictions are near the threshold; they were evaluated like others",
        "warnings": " ".join(
            verdict.message.replace("\n", " ") for verdict in assess(evaluation) if verdict.severity != "note"
        )
        or f"No warnings; each class has at least {MIN_IMAGES} images",
    }


def _internal(evaluation: EvaluationResults) -> dict[str, str]:
    gap, leakage = evaluation.gap, evaluation.leakage
    facts = {}
    if not isinstance(gap, str):
        facts["internal_metrics"] = _join({title: gap.validation_metrics[n] for n, title in GAP_METRICS.items()})
        facts["generalization"] = describe_gap(gap)
    if not isinstance(leakage, str):
        facts["leakage"] = (
            f"{leakage.images:,} images are near-duplicates of {leakage.training_images:,} training images"
        )
    return facts


def _robustness(evaluation: EvaluationResults) -> dict[str, str]:
    stress, outliers = evaluation.stress, evaluation.fractions.out_of_distribution
    facts = {}
    if outliers is not None:
        facts["ood"] = (
            f"{_percent(outliers.value)} of the images are out of distribution; they were evaluated like others"
        )
    if stress is not None:
        name, worst = stress.main_metric, stress.worst
        facts["stress"] = (
            f"Under corruptions, mean {METRICS[name].title} {stress.means[name].describe()}, worst "
            f"{worst.estimates[name].describe()} ({CORRUPTIONS[worst.corruption].title}, severity {worst.severity})"
        )
    return facts


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.3g} %"


def _main(performance: Performance) -> str:
    metrics = performance.main_metrics
    return _join({METRICS[name].title: metrics.get(name) for name in _MAIN})


def _describe_group(group: Subgroup) -> str:
    metrics = _join({METRICS[name].title: estimate for name, estimate in group.estimates.items()})
    return f"{group.factor} {group.level} ({group.images:,} images): {metrics}"


def _join(estimates: Mapping[str, Estimate | None]) -> str:
    return ", ".join(f"{name} {estimate.describe()}" for name, estimate in estimates.items() if estimate is not None)
