"""Terminal output of an evaluation."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from pneumo.common.text import escape_line
from pneumo.inference.evaluate.caveats import assess
from pneumo.inference.evaluate.checklist import build_checklist, count_filled
from pneumo.inference.evaluate.evaluation_results import EvaluationResults
from pneumo.inference.evaluate.evaluation_tables import headline, tables
from pneumo.inference.evaluate.stress_outputs import describe_stress, stress_table
from pneumo.inference.evaluate.study_facts import collect_facts
from pneumo.inference.prediction import NOTICE
from pneumo.reporting.assessment import count_verdicts, terminal_table, verdict_grid
from pneumo.reporting.generalization import describe_gap


def to_terminal(evaluation: EvaluationResults) -> RenderableType:
    """Render an evaluation for a terminal, with the verdicts last."""
    verdicts = assess(evaluation)
    gap = evaluation.gap
    explained = f"No comparison with the internal test: {gap}." if isinstance(gap, str) else describe_gap(gap)
    stress = evaluation.stress
    stressed: list[RenderableType] = []
    if stress is not None:
        stressed = [stress_table(stress), Text(f"{describe_stress(stress)}\n", style="dim")]
    comparison = evaluation.comparison
    other = [] if comparison is None else [Text(f"Other network: {escape_line(comparison.other.name)}\n", style="dim")]
    return Group(
        Text(f"{escape_line(evaluation.cohort.name)}: {headline(evaluation)}\n", style="bold"),
        *(terminal_table(title, rows) for title, rows in tables(evaluation).items()),
        *other,
        *stressed,
        Text(f"{escape_line(explained)}\n", style="dim"),
        Text(f"Verdicts: {count_verdicts(verdicts)}\n", style="bold"),
        verdict_grid(verdicts),
        Text(f"Reporting checklists: {count_checklists(evaluation)}. --html and --json contain them.\n", style="dim"),
        Text(NOTICE, style="bold"),
    )


def count_checklists(evaluation: EvaluationResults) -> str:
    """Return the number of items of each guideline for which the evaluation has text."""
    counts = count_filled(build_checklist(collect_facts(evaluation)))
    return ", ".join(f"{name} {filled} of {total} items" for name, (filled, total) in counts.items())
