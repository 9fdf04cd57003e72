"""The audit on a terminal, 80 columns wide or more."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pneumo.audit import tables
from pneumo.audit.findings import Findings
from pneumo.audit.verdicts import Verdict
from pneumo.console import PlainTable
from pneumo.escaping import escape_line, escape_prose

COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def to_terminal(findings: Findings, verdicts: list[Verdict]) -> RenderableType:
    """Lay out the findings, the verdicts last, where one looks first."""
    grid = Table.grid(padding=(0, 1, 1, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for verdict in verdicts:
        message = escape_prose(verdict.message)
        text = Text.assemble(message, "\n" if "\n" in verdict.message else " ", (verdict.remedy, "italic"))
        grid.add_row(Text(verdict.severity, style=COLOURS[verdict.severity]), text)
    return Group(
        Text(f"{escape_line(str(findings.tree.root))}: {tables.headline(findings)}\n", style="bold"),
        _table("Images", tables.images(findings)),
        _table("Files: median and quartiles", tables.files(findings)),
        _table("Shortcuts", tables.probes(findings)),
        Text(tables.ABOUT_PROBES + "\n", style="dim"),
        Text(f"Verdicts: {tables.tally(verdicts)}\n", style="bold"),
        grid,
    )


def _table(name: str, rows: tables.Rows) -> Table:
    table = PlainTable(name)
    for place, head in enumerate(rows.head):
        table.add_column(head, justify="right" if place else "left", overflow="fold")
    for row in rows.rows:
        table.add_row(row[0], *map(Text, row[1:]))
    return table
