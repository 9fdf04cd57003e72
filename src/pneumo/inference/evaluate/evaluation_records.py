"""JSON and CSV files of an evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pneumo.common import __version__
from pneumo.common.plain_data import format_rows
from pneumo.inference.evaluate.caveats import assess
from pneumo.inference.evaluate.checklist import build_checklist
from pneumo.inference.evaluate.evaluation_results import EvaluationResults
from pneumo.inference.evaluate.performance import Performance
from pneumo.inference.evaluate.reference import Reference
from pneumo.inference.evaluate.stress_outputs import to_records
from pneumo.inference.evaluate.study_facts import collect_facts
from pneumo.inference.prediction import NOTICE
from pneumo.metrics.definitions import METRICS
from pneumo.metrics.intervals import Estimate
from pneumo.metrics.probes import TOO_FEW_PATIENTS, Probe
from pneumo.metrics.subgroups import Subgroups
from pneumo.reporting.generalization import GAP_METRICS, GeneralizationGap

_COLUMNS = (
    *("name", "site", "label", "patient", "probability", "predicted_class", "uncertain", "out_of_distribution"),
    *("ood_score", "notes", "error"),
)
_CALIBRATION = ("intercept", "slope", "observed_expected", "log_loss")
Record = dict[str, Any]


def to_json(evaluation: EvaluationResults) -> str:
    """Format all results as JSON; values that are undefined are null."""
    cohort, rules, fractions = evaluation.cohort, evaluation.rules, evaluation.fractions
    content = {
        "schema": 1,
        "notice": NOTICE,
        "pneumo_version": __version__,
        "checkpoint": evaluation.checkpoint,
        "network": rules.name,
        "classes": rules.classes,
        "threshold": rules.threshold if rules.positive_class is not None else None,
        "data": cohort.name,
        "split": evaluation.split,
        **_performance(evaluation.overall),
        "sites": [{"site": name, **_performance(part)} for name, part in evaluation.sites.items()],
        "decision_curve": {name: values.tolist() for name, values in evaluation.overall.curve._asdict().items()},
        **_estimate("uncertain_fraction", fractions.uncertain),
        **_estimate("accuracy_uncertain", fractions.accuracy_uncertain),
        **_estimate("accuracy_certain", fractions.accuracy_certain),
        **_estimate("out_of_distribution_fraction", fractions.out_of_distribution),
        **_internal(evaluation.reference, evaluation.gap),
        **_subgroups(evaluation.subgroups),
        "confounding": [_probe(probe) for probe in evaluation.probes],
        **_leakage(evaluation),
        "comparison": _comparison(evaluation),
        "stress": None if evaluation.stress is None else to_records(evaluation.stress),
        "notes": [{"note": kind, "images": count} for kind, count in cohort.notes.items()],
        "unreadable": [{"name": name, "reason": reason} for name, reason in cohort.unreadable],
        "skipped": [{"name": name, "reason": reason} for name, reason in cohort.skipped],
        "mined_labels": evaluation.mined_labels,
        "adaptation": evaluation.adaptation or None,
        "checklist": [item._asdict() for item in build_checklist(collect_facts(evaluation))],
        "verdicts": [verdict._asdict() for verdict in assess(evaluation)],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_csv(evaluation: EvaluationResults) -> str:
    """Format one row per image, the unreadable ones last; missing values are empty.

    The patient is the given one or a pseudonym; DICOM headers are never copied. With more than two classes, the
    probability of each class has a column with the name of the class.
    """
    classes = evaluation.rules.classes if len(evaluation.rules.classes) > 2 else ()
    head = [*_COLUMNS, *classes]
    head += [f"extra_{name}" if name in head else name for name in evaluation.cohort.extra_columns]
    return format_rows([head, *_image_rows(evaluation, classes), *_unreadable_rows(evaluation, len(head))])


def _image_rows(evaluation: EvaluationResults, classes: Sequence[str]) -> Iterator[list[object]]:
    cohort, rules = evaluation.cohort, evaluation.rules
    predictions, uncertain, ood = cohort.predictions, cohort.uncertain, cohort.ood_score
    for i, image in enumerate(cohort.images):
        yield [
            image.name,
            image.site,
            rules.classes[predictions.label[i]],
            cohort.patient(i),
            f"{predictions.positive_probability[i]:.9g}",
            rules.classes[predictions.predicted[i]],
            "" if uncertain is None else _flag(bool(uncertain[i])),
            "" if ood is None else _flag(bool(ood[i] > 1)),
            "" if ood is None else f"{ood[i]:.9g}",
            "; ".join(cohort.remarks[i]),
            "",
            *(f"{predictions.probability[i, k]:.9g}" for k in range(len(classes))),
            *image.extra,
        ]


def _unreadable_rows(evaluation: EvaluationResults, columns: int) -> Iterator[list[object]]:
    for name, reason in evaluation.cohort.unreadable:
        row: list[object] = [""] * columns
        row[_COLUMNS.index("name")], row[_COLUMNS.index("error")] = name, reason
        yield row


def _flag(value: bool) -> str:
    return str(value).lower()


def _estimate(name: str, estimate: Estimate | None) -> Record:
    """Return a value and the ends of its interval; None for all three without an estimate."""
    values = (None, None, None) if estimate is None else estimate
    return dict(zip((name, f"{name}_ci_low", f"{name}_ci_high"), values, strict=True))


def _metrics(metrics: Mapping[str, Estimate], names: Sequence[str], prefix: str = "") -> Record:
    return {key: value for name in names for key, value in _estimate(f"{prefix}{name}", metrics.get(name)).items()}


def _performance(performance: Performance) -> Record:
    ratios, own = performance.ratios, performance.predictive_values[0]
    record: Record = {
        "images": performance.images,
        "patients": performance.patients,
        "positives": performance.positives,
        "prevalence": own.prevalence,
        **_metrics(performance.metrics, list(METRICS)),
        **_estimate("likelihood_ratio_positive", None if ratios is None else ratios.positive),
        **_estimate("likelihood_ratio_negative", None if ratios is None else ratios.negative),
        **_estimate("ppv", own.ppv),
        **_estimate("npv", own.npv),
    }
    record["predictive_values"] = [
        {"prevalence": each.prevalence, **_estimate("ppv", each.ppv), **_estimate("npv", each.npv)}
        for each in performance.predictive_values[1:]
    ]
    record["operating_points"] = [
        {"given": each.given, "level": each.level, **_estimate("value", each.value), "threshold": each.threshold}
        for each in performance.points
    ]
    for name in _CALIBRATION:
        key = f"calibration_{name}" if name in ("intercept", "slope") else name
        record |= _estimate(key, getattr(performance.calibration, name))
    if performance.binary_metrics:
        record |= _metrics(performance.binary_metrics, list(performance.binary_metrics), "binary_")
        record["class_aurocs"] = [
            {"class": name, **_estimate("auroc", area)} for name, area in performance.class_aurocs.items()
        ]
    return record


def _internal(reference: Reference | str, gap: GeneralizationGap | str) -> Record:
    measured = None if isinstance(gap, str) else gap
    record: Record = {
        "internal_source": None if isinstance(reference, str) else reference.origin,
        "internal_missing": gap if isinstance(gap, str) else None,
        "internal_images": None if measured is None else len(measured.validation.label),
    }
    record |= _metrics({} if measured is None else measured.validation_metrics, list(GAP_METRICS), "internal_")
    record |= _metrics({} if measured is None else measured.drop, list(GAP_METRICS), "drop_")
    for name in ("threshold_drop", "ranking_drop", "oracle", "oracle_threshold"):
        record[name] = None if measured is None else getattr(measured, name)
    return record


def _subgroups(subgroups: Subgroups) -> Record:
    names = ("auroc", "sensitivity", "specificity")
    return {
        "subgroups": [
            {
                "factor": group.factor,
                "level": group.level,
                "images": group.images,
                "patients": group.patients,
                "positives": group.positives,
                "untested": group.untested,
                **_metrics(group.estimates, names),
            }
            for group in subgroups.groups
        ],
        "subgroup_differences": [
            {
                "factor": test.factor,
                "level": test.level,
                "metric": test.metric,
                **_estimate("difference", Estimate(*test.difference[:3])),
                "p_value": test.difference.p,
                "p_holm": test.holm,
            }
            for test in subgroups.differences
        ],
    }


def _probe(probe: Probe) -> Record:
    reason = TOO_FEW_PATIENTS if probe.estimate is None else None
    return {"property": probe.name, **_estimate("auroc", probe.estimate), "undefined": reason}


def _leakage(evaluation: EvaluationResults) -> Record:
    leakage = evaluation.leakage
    if isinstance(leakage, str):
        return {"leakage_unchecked": leakage, "training_images": None, "leakage_images": None, "leakage_pairs": []} | {
            "metrics_without_duplicates": None
        }
    without = leakage.metrics_without
    return {
        "leakage_unchecked": None,
        "training_images": leakage.training_images,
        "leakage_images": leakage.images,
        "leakage_pairs": [{"image": image, "training_image": other} for image, other in leakage.pairs],
        "metrics_without_duplicates": None if without is None else _metrics(without, list(METRICS)),
    }


def _comparison(evaluation: EvaluationResults) -> Record | None:
    comparison = evaluation.comparison
    if comparison is None:
        return None
    return {
        "other": comparison.other.name,
        **_metrics(comparison.other.metrics, list(METRICS), "other_"),
        **_metrics(comparison.other.binary_metrics, list(comparison.other.binary_metrics), "other_binary_"),
        "differences": [
            {
                "metric": name,
                **_estimate("difference", Estimate(*paired.difference[:3])),
                "p_value": paired.difference.p,
                "p_holm": paired.holm,
            }
            for name, paired in comparison.differences.items()
        ],
    }
