"""Tables of an audit's findings, for the terminal and the page."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pneumo.audit.findings import QUANTITIES, Findings, quantiles
from pneumo.audit.shortcuts import Probe
from pneumo.audit.verdicts import SEVERITIES, Verdict
from pneumo.common.terminal import PlainTable
from pneumo.common.text import escape_line, escape_prose

PROBES = {
    "metadata": "width, height, bytes, bytes per pixel, mode",
    "shape": "width to height alone",
    "frame": "the outer sixteenth of each side",
    "thumbnail": "8 x 8 pixels",
}
ABOUT_PROBES = (
    "Gradient-boosted trees guess labels from what should not tell them; each patient is guessed by trees that have "
    "not seen that patient. 0.5 is chance, 1 is certainty. Far above 0.5 for files or frames, a network can score high "
    "without a look at the lungs. What 8 x 8 pixels tell is in part real: opacities brighten lungs."
)
TITLES = {"kilobytes": "kB", "bytes_per_pixel": "bytes/px"}
_FORMS = {"width": ",.0f", "height": ",.0f", "aspect": ".2f", "kilobytes": ",.1f", "bytes_per_pixel": ".3f"}
_LISTED = 50  # lines of a listing
_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


class Rows(NamedTuple):
    """A table, whose first column holds names and whose others hold numbers."""

    head: list[str]
    rows: list[list[str]]


def headline(findings: Findings) -> str:
    """Say what was audited."""
    tree = findings.tree
    splits = "" if len(tree.splits) == 1 else f" in {', '.join(tree.splits)}"
    kinds = "1 class" if len(tree.classes) == 1 else f"{len(tree.classes)} classes"
    return f"{len(tree.files):,} images of {kinds}{splits}"


def tally(verdicts: Sequence[Verdict]) -> str:
    """Count the verdicts, such as `no errors, 1 warning, 2 notes`."""
    counts = [(name, sum(verdict.severity == name for verdict in verdicts)) for name in SEVERITIES]
    return ", ".join(f"{count or 'no'} {name}{'' if count == 1 else 's'}" for name, count in counts)


def images(findings: Findings) -> Rows:
    """Count images, a row for each class and subtype and a column for each split."""
    splits, counts, classes = findings.tree.splits, findings.counts(), findings.class_counts()
    rows: list[list[str]] = []

    def add(name: str, row: list[int]) -> None:
        rows.append([name, *(f"{count:,}" for count in row), f"{sum(row) / len(findings.tree.files):.1%}"])

    for name in findings.tree.classes:
        add(name, [classes[split][name] for split in splits])
        subtypes = sorted({subtype for _, of, subtype in counts if of == name})
        for subtype in subtypes if len(subtypes) > 1 else []:
            label = "no subtype told" if subtype == "none" else subtype
            add(f"  {label}", [counts.get((split, name, subtype), 0) for split in splits])
    if (names := findings.patients.per_split) and any(names.values()):
        rows.append(["patient names", *(f"{names.get(split, 0):,}" for split in splits), ""])
    return Rows(["class", *splits, "share"], rows)


def files(findings: Findings) -> Rows:
    """Give median and quartiles of the files' properties, a row for each class."""
    columns = [(quantity, findings.values(quantity)) for quantity in QUANTITIES]
    rows = [
        [name, *(_spread(values[name], quantity) for quantity, values in columns)] for name in findings.tree.classes
    ]
    return Rows(["class", *(TITLES.get(quantity, quantity) for quantity in QUANTITIES)], rows)


def kinds(findings: Findings) -> Rows:
    """Count formats and modes."""
    rows = [[name, f"{form} {mode}", f"{count:,}"] for (name, form, mode), count in findings.kinds().items()]
    return Rows(["class", "format and mode", "images"], rows)


def probes(findings: Findings) -> Rows:
    """Give the probes' AUROCs."""
    rows = [[PROBES[probe.name], *_area(probe)] for probe in findings.probes]
    return Rows(["labels guessed from", "AUROC", "95\u00a0% interval"], rows)


def listings(findings: Findings) -> Iterator[tuple[str, list[str], int]]:
    """Give a title, lines, and how many there are more, for what one wants to look up."""
    found = {
        "Unreadable files": [f"{path} {reason}" for path, reason in findings.pictures.unreadable],
        "Doubtful images": [f"{path}: {'; '.join(notes)}" for path, notes in findings.pictures.noted().items()],
        "Files with another format's suffix": [f"{path} is {form}" for path, form in findings.pictures.mismatched()],
        "Other files": list(findings.tree.junk),
        "Patient names in several splits": list(findings.patients.shared),
    }
    for name, lines in found.items():
        if lines:
            yield name, lines[:_LISTED], len(lines[_LISTED:])


def to_terminal(findings: Findings, verdicts: Sequence[Verdict]) -> RenderableType:
    """Lay out the findings, the verdicts last, where one looks first."""
    grid = Table.grid(padding=(0, 1, 1, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for verdict in verdicts:
        message = escape_prose(verdict.message)
        text = Text.assemble(message, "\n" if "\n" in verdict.message else " ", (verdict.remedy, "italic"))
        grid.add_row(Text(verdict.severity, style=_STYLES[verdict.severity]), text)
    return Group(
        Text(f"{escape_line(str(findings.tree.root))}: {headline(findings)}\n", style="bold"),
        _table("Images", images(findings)),
        _table("Files: median and quartiles", files(findings)),
        _table("Shortcuts", probes(findings)),
        Text(ABOUT_PROBES + "\n", style="dim"),
        Text(f"Verdicts: {tally(verdicts)}\n", style="bold"),
        grid,
    )


def _spread(values: list[float], quantity: str) -> str:
    if not values:
        return "none"
    _, lower, median, upper, _ = (format(value, _FORMS[quantity]) for value in quantiles(values))
    return median if lower == upper else f"{median}\n{lower}\u2013{upper}"


def _area(probe: Probe) -> tuple[str, str]:
    if probe.auroc is None:
        return "none", "too few patients"
    return f"{probe.auroc:.3f}", f"{probe.low:.3f} to {probe.high:.3f}"


def _table(name: str, rows: Rows) -> Table:
    table = PlainTable(name)
    for place, head in enumerate(rows.head):
        table.add_column(head, justify="right" if place else "left", overflow="fold")
    for row in rows.rows:
        table.add_row(row[0], *map(Text, row[1:]))
    return table
