"""Tables of an audit's findings, for the terminal and the HTML page."""

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from pneumo.audit.findings import QUANTITIES, Findings, quantiles
from pneumo.common.text import escape_line
from pneumo.metrics.probes import Probe
from pneumo.reporting.assessment import Rows, Verdict, count_verdicts, terminal_table, verdict_grid

PROBES = {
    "metadata": "width, height, file size, bytes per pixel, mode",
    "shape": "aspect ratio alone",
    "frame": "outer sixteenth of each side",
    "thumbnail": "8 x 8 pixels",
}
ABOUT_PROBES = (
    "Gradient-boosted trees, cross-validated by patient, predict the labels from features that should not reveal them. "
    "An AUROC of 0.5 is chance, 1 is perfect. If it is far above 0.5 for metadata, aspect ratio or frame, a network "
    "can score high without using the lungs. For 8 x 8 pixels, part of it is genuine: opacities brighten the lungs."
)
TITLES = {"kilobytes": "kB", "bytes_per_pixel": "bytes/px"}
_FORMATS = {"width": ",.0f", "height": ",.0f", "aspect": ".2f", "kilobytes": ",.1f", "bytes_per_pixel": ".3f"}
_MAX_LINES = 50  # of a listing


def headline(findings: Findings) -> str:
    """Summarize the numbers of images and classes and the names of the splits as text."""
    tree = findings.tree
    splits = "" if len(tree.splits) == 1 else f" in {', '.join(tree.splits)}"
    classes = "1 class" if len(tree.classes) == 1 else f"{len(tree.classes)} classes"
    return f"{len(tree.files):,} images of {classes}{splits}"


def image_table(findings: Findings) -> Rows:
    """Count the images by class and subtype (rows) and split (columns)."""
    splits, counts, classes = findings.tree.splits, findings.counts(), findings.class_counts()
    rows: list[list[str]] = []

    def add(name: str, row: list[int]) -> None:
        rows.append([name, *(f"{count:,}" for count in row), f"{sum(row) / len(findings.tree.files):.1%}"])

    for name in findings.tree.classes:
        add(name, [classes[split][name] for split in splits])
        subtypes = sorted({subtype for _, label, subtype in counts if label == name})
        for subtype in subtypes if len(subtypes) > 1 else []:
            title = "unknown subtype" if subtype == "none" else subtype
            add(f"  {title}", [counts.get((split, name, subtype), 0) for split in splits])
    if (names := findings.patients.per_split) and any(names.values()):
        rows.append(["patient names", *(f"{names.get(split, 0):,}" for split in splits), ""])
    return Rows(["class", *splits, "percentage"], rows)


def file_table(findings: Findings) -> Rows:
    """Return median and quartiles of file properties by class."""
    columns = [(quantity, findings.values(quantity)) for quantity in QUANTITIES]
    rows = [
        [name, *(_spread(values[name], quantity) for quantity, values in columns)] for name in findings.tree.classes
    ]
    return Rows(["class", *(TITLES.get(quantity, quantity) for quantity in QUANTITIES)], rows)


def format_table(findings: Findings) -> Rows:
    """Count the images by class, format and mode."""
    rows = [[name, f"{form} {mode}", f"{count:,}"] for (name, form, mode), count in findings.formats().items()]
    return Rows(["class", "format and mode", "images"], rows)


def probe_table(findings: Findings) -> Rows:
    """Return the AUROC of each probe with its interval."""
    rows = [[PROBES[probe.name], *_area(probe)] for probe in findings.probes]
    return Rows(["labels predicted from", "AUROC", "95\u00a0% interval"], rows)


def listings(findings: Findings) -> Iterator[tuple[str, list[str], int]]:
    """Yield a title, lines and the number of omitted lines for each list of files or names."""
    lists = {
        "Unreadable files": [f"{path} {reason}" for path, reason in findings.images.unreadable],
        "Doubtful images": [f"{path}: {'; '.join(notes)}" for path, notes in findings.images.noted().items()],
        "Files with the suffix of another format": [f"{path} is {form}" for path, form in findings.images.mismatched()],
        "Other files": list(findings.tree.junk),
        "Omitted rows of the table": [f"{path}: {reason}" for path, reason in findings.tree.omitted],
        "Patient names in several splits": list(findings.patients.shared),
    }
    for name, lines in lists.items():
        if lines:
            yield name, lines[:_MAX_LINES], len(lines[_MAX_LINES:])


def to_terminal(findings: Findings, verdicts: Sequence[Verdict]) -> RenderableType:
    """Render the findings for a terminal, with the verdicts last."""
    return Group(
        Text(f"{escape_line(str(findings.tree.source))}: {headline(findings)}\n", style="bold"),
        terminal_table("Images", image_table(findings)),
        terminal_table("Files: median and quartiles", file_table(findings)),
        terminal_table("Shortcuts", probe_table(findings)),
        Text(ABOUT_PROBES + "\n", style="dim"),
        Text(f"Verdicts: {count_verdicts(verdicts)}\n", style="bold"),
        verdict_grid(verdicts),
    )


def _spread(values: list[float], quantity: str) -> str:
    if not values:
        return "none"
    _, lower, median, upper, _ = (format(value, _FORMATS[quantity]) for value in quantiles(values))
    return median if lower == upper else f"{median}\n{lower}\u2013{upper}"


def _area(probe: Probe) -> tuple[str, str]:
    if probe.auroc is None:
        return "none", "too few patients"
    return f"{probe.auroc:.3f}", f"{probe.low:.3f} to {probe.high:.3f}"
