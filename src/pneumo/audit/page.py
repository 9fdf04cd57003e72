"""The audit's HTML page, self-contained in one file."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from pneumo.audit.findings import QUANTITIES, Findings
from pneumo.audit.properties import Copies
from pneumo.audit.tables import ABOUT_PROBES, PROBES, TITLES, files, headline, images, kinds, listings, probes, tally
from pneumo.audit.verdicts import Verdict
from pneumo.reporting.figures.style import COLOURS, GREY, STYLE, encode
from pneumo.reporting.rendering import encode_jpeg, render

_Ends = tuple[float | None, float | None, float | None]
_MOST_CLASSES = len(COLOURS)  # that colours tell apart
_MOST, _MEMBERS = 24, 4  # groups of copies shown, and films of each
_CAPTIONS = {
    "means": "The mean film of each class. What differs outside the lungs is no finding.",
    "shortcuts": "How well labels are guessed from what should not tell them, with 95 % intervals.",
    "distributions": "What varies between files. Where the lines part, files tell the classes apart.",
    "patients": "How much more alike films of one name are than strangers' of the same class, with 95 % intervals.",
}


def to_html(findings: Findings, verdicts: Sequence[Verdict]) -> str:
    """Fill in the page."""
    drawn = draw(findings)
    return render(
        "audit.html",
        title=f"Audit of {findings.tree.root.name or findings.tree.root}",
        lead=f"{headline(findings)}: {tally(verdicts)}.",
        verdicts=verdicts,
        tables={
            "Images": images(findings),
            "Files: median and quartiles": files(findings),
            "Formats": kinds(findings),
            "Shortcuts": probes(findings),
        },
        about_probes=ABOUT_PROBES,
        figures=[(name, text, drawn[name]) for name, text in _CAPTIONS.items() if name in drawn],
        copies=[_show(findings, group) for group in findings.copies[:_MOST]],
        hidden=len(findings.copies[_MOST:]),
        listings=list(listings(findings)),
    )


def draw(findings: Findings) -> dict[str, bytes]:
    """Draw what there is to see, as SVG files by the figure's name."""
    patients = findings.patients
    alike = {
        "in one split": patients.within,
        "in one split, several subtypes": patients.subtypes,
        "across splits": patients.across,
    }
    with rc_context(STYLE):
        figures = {"means": _means(findings)}
        if any(_varies(findings, quantity) for quantity in QUANTITIES):
            figures["distributions"] = _distributions(findings)
        if any(probe.auroc is not None for probe in findings.probes):
            figures["shortcuts"] = _intervals(
                {PROBES[probe.name]: (probe.auroc, probe.low, probe.high) for probe in findings.probes},
                0.5,
                COLOURS[0],
                "AUROC (0.5 is chance)",
                "Labels guessed without findings",
            )
            figures["shortcuts"].axes[0].set_xlim(0.35, 1.01)
        if patients.within.names > 1:
            figures["patients"] = _intervals(
                {f"{name} ({of.names:,} names)": (of.excess, of.low, of.high) for name, of in alike.items()},
                0,
                COLOURS[1],
                "excess cosine (0: as alike as strangers' films)",
                "Films that share a patient's name",
            )
    return encode(figures, "svg")


def _distributions(findings: Findings) -> Figure:
    """Draw a histogram of each property that varies, a line for each class."""
    shown = {quantity: findings.values(quantity) for quantity in QUANTITIES if _varies(findings, quantity)}
    rows = 1 if len(shown) < 3 else 2
    figure = Figure(figsize=(10, 2.7 * rows), layout="constrained")
    for axes, (quantity, values) in zip(figure.subplots(rows, 3).flat, shown.items(), strict=False):
        every = np.concatenate([np.asarray(of_class) for of_class in values.values()])
        bins = np.linspace(every.min(), every.max(), 41)
        for (name, of_class), colour in zip(values.items(), COLOURS, strict=False):
            weights = np.full(len(of_class), 1 / max(len(of_class), 1))
            axes.hist(of_class, bins, weights=weights, histtype="step", lw=1.8, color=colour, label=name)
        axes.set(xlabel=TITLES.get(quantity, quantity), ylabel="share of the class")
    for axes in figure.axes[len(shown) :]:
        axes.axis("off")
    figure.axes[-1].legend(*figure.axes[0].get_legend_handles_labels(), loc="center", fontsize=11)
    return figure


def _varies(findings: Findings, quantity: str) -> bool:
    return len({value for values in findings.values(quantity).values() for value in values}) > 1


def _intervals(values: Mapping[str, _Ends], chance: float, colour: str, words: str, title: str) -> Figure:
    """Draw values with their intervals, a row each; those that were not measured are left out."""
    shown = {name: ends for name, ends in values.items() if ends[0] is not None}
    figure = Figure(figsize=(8, 1.3 + 0.42 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    for row, (value, low, high) in enumerate(shown.values()):
        if low is not None and high is not None:
            axes.plot((low, high), (row, row), color=colour, lw=2.5, solid_capstyle="round")
        axes.plot(value or 0, row, "o", color=colour, ms=8, mec="white")
    axes.axvline(chance, color=GREY, lw=1, ls=":")
    axes.set_yticks(range(len(shown)), list(shown))
    axes.set(ylim=(len(shown) - 0.5, -0.5), xlabel=words, title=title)
    return figure


def _means(findings: Findings) -> Figure:
    """Show the mean film of each class, and for two classes what sets them apart."""
    films, labels, names = findings.pictures.thumbnails, findings.pictures.labels, findings.tree.classes
    means = {names[label]: films[labels == label].mean(0) for label in np.unique(labels)}
    shown = list(means.items())[:_MOST_CLASSES]
    count = len(shown) + (len(means) == 2)
    figure = Figure(figsize=(max(2.3 * count, 3), 2.6), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, count))
    for axes, (name, mean) in zip(panels, shown, strict=False):
        axes.imshow(mean, cmap="gray", vmin=0, vmax=255)
        axes.set_title(name)
    if len(means) == 2:
        one, other = means.values()
        image = panels[-1].imshow(other - one, cmap="RdBu_r", vmin=-60, vmax=60)
        panels[-1].set_title("second less first")
        figure.colorbar(image, ax=panels[-1], shrink=0.8, label="grey values")
    for axes in panels:
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
    return figure


def _show(findings: Findings, group: Copies) -> dict[str, Any]:
    """Return what is wrong with a group, path and JPEG of its first films, and the number of others."""
    about = ["identical files" if group.identical else "the same film"]
    about += ["in several classes"] if len(group.labels) > 1 else []
    about += ["in several splits"] if len(group.splits) > 1 else []
    members = group.members[:_MEMBERS]
    films = [
        (findings.pictures.files[member].path, encode_jpeg(findings.pictures.thumbnails[member])) for member in members
    ]
    return {"about": ", ".join(about), "films": films, "more": len(group.members) - len(members)}
