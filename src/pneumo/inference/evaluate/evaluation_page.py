"""HTML page of an evaluation, self-contained in one file."""

from __future__ import annotations

from matplotlib import rc_context
from matplotlib.figure import Figure

from pneumo.common import __version__
from pneumo.common.text import format_probability
from pneumo.inference.evaluate.captions import caption_tables
from pneumo.inference.evaluate.caveats import assess
from pneumo.inference.evaluate.checklist import DOIS, build_checklist, count_filled
from pneumo.inference.evaluate.evaluation_results import EvaluationResults
from pneumo.inference.evaluate.evaluation_tables import headline, key_numbers, tables
from pneumo.inference.evaluate.stress_outputs import describe_stress, draw_stress_test
from pneumo.inference.evaluate.study_facts import collect_facts
from pneumo.inference.prediction import NOTICE
from pneumo.reporting.assessment import count_verdicts
from pneumo.reporting.figures.evaluation_figures import (
    CAPTIONS,
    NamedSet,
    draw_decision_curve,
    draw_reliability,
    draw_roc,
    draw_score_distributions,
    draw_subgroups,
)
from pneumo.reporting.figures.style import STYLE, encode
from pneumo.reporting.rendering import render

_MAX_LINES = 50  # of a listing


def to_html(evaluation: EvaluationResults) -> str:
    """Render the page."""
    verdicts, figures, rules = assess(evaluation), plot_figures(evaluation), evaluation.rules
    gap = evaluation.gap
    threshold = "the most probable class" if rules.positive_class is None else format_probability(rules.threshold)
    facts = {
        "network": f"{rules.name} ({', '.join(rules.classes)})",
        "checkpoint": evaluation.checkpoint or "in memory",
        "threshold": threshold,
        **({"adaptation": evaluation.adaptation} if evaluation.adaptation else {}),
        "internal test": gap if isinstance(gap, str) else f"{len(gap.validation.label):,} images",
        **({} if evaluation.comparison is None else {"other network": evaluation.comparison.other.name}),
        "pneumo": __version__,
    }
    return render(
        "evaluation.html",
        title=f"Evaluation on {evaluation.cohort.name}",
        lead=f"{headline(evaluation)}: {count_verdicts(verdicts)}.",
        notice=NOTICE,
        facts=facts,
        verdicts=verdicts,
        tables=tables(evaluation),
        stress="" if evaluation.stress is None else describe_stress(evaluation.stress),
        key_numbers=key_numbers(evaluation.overall),
        captions=caption_tables(evaluation),
        figures=[(name, text, figures[name]) for name, text in CAPTIONS.items() if name in figures],
        listings=list(_listings(evaluation)),
        checklists=_checklists(evaluation),
    )


def plot_figures(evaluation: EvaluationResults) -> dict[str, bytes]:
    """Plot the figures for which there are data; return them as SVG, by name."""
    binary, rules = evaluation.overall.predictions.as_binary(), evaluation.rules
    threshold = None if rules.positive_class is None else rules.threshold
    figures: dict[str, Figure] = {}
    with rc_context(STYLE):
        if binary.has_both_classes:
            figures["roc"] = draw_roc(_named_sets(evaluation), _reference(evaluation))
            figures["decision_curve"] = draw_decision_curve(evaluation.overall.curve, threshold)
        figures["calibration"] = draw_reliability(binary)
        figures["scores"] = draw_score_distributions(evaluation.overall.predictions, threshold)
        if evaluation.stress is not None:
            figures["stress"] = draw_stress_test(evaluation.stress)
        if evaluation.subgroups.groups:
            figures["subgroups"] = draw_subgroups(evaluation.subgroups.largest, evaluation.overall.main_metrics)
    return encode(figures, "svg")


def _named_sets(evaluation: EvaluationResults) -> list[NamedSet]:
    parts = list(evaluation.sites.values()) or [evaluation.overall]
    return [
        NamedSet(part.name, part.predictions.as_binary(), part.main_metrics["auroc"])
        for part in parts
        if part.predictions.has_both_classes
    ] or [NamedSet("all", evaluation.overall.predictions.as_binary(), evaluation.overall.main_metrics["auroc"])]


def _reference(evaluation: EvaluationResults) -> NamedSet | None:
    gap = evaluation.gap
    if isinstance(gap, str):
        return None
    return NamedSet("internal test", gap.validation, gap.validation_metrics["auroc"])


def _checklists(evaluation: EvaluationResults) -> list[dict[str, object]]:
    """Return name, DOI, counts and items of each guideline."""
    items = build_checklist(collect_facts(evaluation))
    counts = count_filled(items)
    return [
        {
            "name": name,
            "doi": doi,
            "counts": counts[name].describe(),
            "items": [item for item in items if item.guideline == name],
        }
        for name, doi in DOIS.items()
    ]


def _listings(evaluation: EvaluationResults) -> list[tuple[str, list[str], int]]:
    """Return a title, lines and the number of omitted lines for each list of files."""
    cohort, leakage = evaluation.cohort, evaluation.leakage
    pairs = () if isinstance(leakage, str) else leakage.pairs
    lists = {
        "Near-duplicates of training images": [f"{image} = {other}" for image, other in pairs],
        "Unreadable images": [f"{name} {reason}" for name, reason in cohort.unreadable],
        "Doubtful images": [
            f"{image.name}: {'; '.join(notes)}"
            for image, notes in zip(cohort.images, cohort.remarks, strict=True)
            if notes
        ],
        "Entries that are not used": [f"{name}: {reason}" for name, reason in cohort.skipped],
    }
    return [(name, lines[:_MAX_LINES], len(lines[_MAX_LINES:])) for name, lines in lists.items() if lines]
