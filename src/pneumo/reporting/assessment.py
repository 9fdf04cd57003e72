"""Verdicts and tables of an assessment, for terminals and HTML pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from rich.table import Table
from rich.text import Text

from pneumo.common.terminal import PlainTable
from pneumo.common.text import escape_prose

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


class Verdict(NamedTuple):
    """The result of a check that found a problem or a noteworthy property."""

    severity: Severity  # an error invalidates test results, a warning may, a note is informative
    check: str  # stable name of the check
    message: str  # the finding, with numbers
    remedy: str  # the recommended action


class Rows(NamedTuple):
    """A table with names in the first column and numbers in the others."""

    head: list[str]
    rows: list[list[str]]


def count_verdicts(verdicts: Sequence[Verdict]) -> str:
    """Count the verdicts, such as `no errors, 1 warning, 2 notes`."""
    counts = [(name, sum(verdict.severity == name for verdict in verdicts)) for name in SEVERITIES]
    return ", ".join(f"{count or 'no'} {name}{'' if count == 1 else 's'}" for name, count in counts)


def verdict_grid(verdicts: Sequence[Verdict]) -> Table:
    """Build a grid of verdicts for a terminal, one per row."""
    grid = Table.grid(padding=(0, 1, 1, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for verdict in verdicts:
        message = escape_prose(verdict.message)
        text = Text.assemble(message, "\n" if "\n" in verdict.message else " ", (verdict.remedy, "italic"))
        grid.add_row(Text(verdict.severity, style=_STYLES[verdict.severity]), text)
    return grid


def terminal_table(name: str, rows: Rows) -> Table:
    """Build a table for a terminal."""
    table = PlainTable(name)
    for index, head in enumerate(rows.head):
        table.add_column(head, justify="right" if index else "left", overflow="fold")
    for row in rows.rows:
        table.add_row(row[0], *map(Text, row[1:]))
    return table
