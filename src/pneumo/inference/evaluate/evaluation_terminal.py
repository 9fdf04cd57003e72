"""Terminal output of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from pneumo.common.text import escape_line
from pneumo.inference.evaluate.captions import caption_tables
from pneumo.inference.evaluate.caveats import assess
from pneumo.inference.evaluate.checklist import build_checklist, count_filled
from pneumo.inference.evaluate.evaluation_results import EvaluationResults
from pneumo.inference.evaluate.evaluation_tables import headline, tables
from pneumo.inference.evaluate.stress_outputs import describe_stress, stress_table
from pneumo.inference.evaluate.study_facts import collect_facts
from pneumo.inference.prediction import NOTICE
from pneumo.reporting.assessment import count_verdicts, terminal_table, verdict_grid


def to_terminal(evaluation: EvaluationResults, files: Sequence[Path] = ()) -> RenderableType:
    """Render an evaluation for a terminal, with the verdicts last.

    Args:
        evaluation: The results.
        files: The written files that contain the reporting checklists.
    """
    verdicts = assess(evaluation)
    captions, gap = caption_tables(evaluation), evaluation.gap
    shown: list[RenderableType] = []
    for title, rows in tables(evaluation).items():
        shown.append(terminal_table(title, rows))
        if title in captions:
            shown.append(_dim(captions[title]))
    missing = [_dim(f"No comparison with the internal test: {gap}.")] if isinstance(gap, str) else []
    stress = evaluation.stress
    stressed: list[RenderableType] = []
    if stress is not None:
        stressed = [stress_table(stress), _dim(describe_stress(stress))]
    comparison = evaluation.comparison
    other = [] if comparison is None else [_dim(f"Other network: {comparison.other.name}")]
    return Group(
        Text(f"{escape_line(evaluation.cohort.name)}: {headline(evaluation)}\n", style="bold"),
        *shown,
        *other,
        *stressed,
        *missing,
        Text(f"Verdicts: {count_verdicts(verdicts)}\n", style="bold"),
        verdict_grid(verdicts),
        _dim(f"Reporting checklists: {count_checklists(evaluation)}. {_locate(files)}"),
        Text(NOTICE, style="bold"),
    )


def count_checklists(evaluation: EvaluationResults) -> str:
    """Return the number of items of each guideline for which the evaluation has text."""
    counts = count_filled(build_checklist(collect_facts(evaluation)))
    return ", ".join(f"{name} {count.describe()}" for name, count in counts.items())


def _locate(files: Sequence[Path]) -> str:
    if files:
        return f"They are in {' and '.join(map(str, files))}."
    return "Use --html or --json for them."


def _dim(text: str) -> Text:
    return Text(f"{escape_line(text)}\n", style="dim")
