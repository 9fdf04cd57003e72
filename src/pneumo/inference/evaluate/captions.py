"""Captions of an evaluation's tables, for the terminal and the HTML page."""

from __future__ import annotations

from pneumo.inference.evaluate.evaluation_results import EvaluationResults
from pneumo.metrics.subgroups import TOO_FEW_IMAGES, Subgroups
from pneumo.reporting.generalization import describe_gap

_POINTS = "Thresholds are selected on these images: on new images, expect lower values."
_PROBES = "Cross-validation biases the AUROC below 0.5 in small sets: a value below 0.5 means chance."


def caption_tables(evaluation: EvaluationResults) -> dict[str, str]:
    """Return captions by title of the table; tables that need none are left out."""
    gap = evaluation.gap
    captions = {
        "Operating points": _POINTS,
        "Internal and external images": "" if isinstance(gap, str) else describe_gap(gap),
        "Subgroups": _describe_levels(evaluation.subgroups),
        "Labels predicted from other properties": _PROBES,
    }
    return {title: text for title, text in captions.items() if text}


def _describe_levels(subgroups: Subgroups) -> str:
    sentences = []
    if any(group.untested == TOO_FEW_IMAGES for group in subgroups.groups):
        sentences.append(f"Levels with {TOO_FEW_IMAGES} are not tested.")
    if hidden := len(subgroups.groups) - len(subgroups.largest):
        sentences.append(f"The largest levels are shown; the JSON output has {hidden} more.")
    return " ".join(sentences)
