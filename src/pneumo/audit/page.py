"""HTML page of an audit, self-contained in one file."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from pneumo.audit.findings import QUANTITIES, Findings
from pneumo.audit.properties import DuplicateGroup
from pneumo.audit.tables import (
    ABOUT_PROBES,
    PROBES,
    file_table,
    format_table,
    headline,
    image_table,
    listings,
    probe_table,
)
from pneumo.reporting.assessment import Verdict, count_verdicts
from pneumo.reporting.figures.style import COLOURS, GREY, STYLE, encode
from pneumo.reporting.rendering import encode_jpeg, render

_Estimate = tuple[float | None, float | None, float | None]  # value, and lower and upper end of its interval
_MAX_CLASSES = len(COLOURS)
_MAX_GROUPS, _MAX_MEMBERS = 24, 4  # groups of duplicates shown, and images per group
_CAPTIONS = {
    "means": "Mean image of each class. Differences outside the lungs are not findings.",
    "shortcuts": "AUROC of labels predicted from features that should not reveal them, with 95 % intervals.",
    "distributions": "File properties by class. Where the histograms differ, the files reveal the class.",
    "patients": "Similarity of images with the same patient name, minus that of different patients of the same class, "
    "with 95 % intervals.",
}
_AXES = {
    "width": "width (pixels)",
    "height": "height (pixels)",
    "aspect": "aspect ratio",
    "kilobytes": "file size (kB)",
    "bytes_per_pixel": "bytes per pixel",
}


def to_html(findings: Findings, verdicts: Sequence[Verdict]) -> str:
    """Render the page."""
    figures = plot_figures(findings)
    return render(
        "audit.html",
        title=f"Audit of {findings.tree.source.name or findings.tree.source}",
        lead=f"{headline(findings)}: {count_verdicts(verdicts)}.",
        verdicts=verdicts,
        tables={
            "Images": image_table(findings),
            "Files: median and quartiles": file_table(findings),
            "Formats": format_table(findings),
            "Shortcuts": probe_table(findings),
        },
        about_probes=ABOUT_PROBES,
        figures=[(name, text, figures[name]) for name, text in _CAPTIONS.items() if name in figures],
        duplicates=[_group(findings, group) for group in findings.duplicates[:_MAX_GROUPS]],
        hidden=len(findings.duplicates[_MAX_GROUPS:]),
        listings=list(listings(findings)),
    )


def plot_figures(findings: Findings) -> dict[str, bytes]:
    """Plot the figures for which there are data; return them as SVG, by name."""
    patients = findings.patients
    similarities = {
        "in one split": patients.within,
        "in one split, different subtypes": patients.subtypes,
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
                "Labels predicted from shortcuts",
            )
            figures["shortcuts"].axes[0].set_xlim(0.35, 1.01)
        if patients.within.names > 1:
            figures["patients"] = _intervals(
                {
                    f"{name} ({similarity.names:,} names)": (similarity.excess, similarity.low, similarity.high)
                    for name, similarity in similarities.items()
                },
                0,
                COLOURS[1],
                "excess cosine (0: as similar as different patients)",
                "Images with the same patient name",
            )
    return encode(figures, "svg")


def _distributions(findings: Findings) -> Figure:
    """Plot one histogram per property that varies, with one line per class."""
    shown = {quantity: findings.values(quantity) for quantity in QUANTITIES if _varies(findings, quantity)}
    rows = 1 if len(shown) < 3 else 2
    figure = Figure(figsize=(10, 2.7 * rows), layout="constrained")
    for axes, (quantity, values) in zip(figure.subplots(rows, 3).flat, shown.items(), strict=False):
        combined = np.concatenate([np.asarray(class_values) for class_values in values.values()])
        bins = np.linspace(combined.min(), combined.max(), 41)
        for (name, class_values), colour in zip(values.items(), COLOURS, strict=False):
            weights = np.full(len(class_values), 1 / max(len(class_values), 1))
            axes.hist(class_values, bins, weights=weights, histtype="step", lw=1.8, color=colour, label=name)
        axes.set(xlabel=_AXES[quantity], ylabel="fraction of the class")
    for axes in figure.axes[len(shown) :]:
        axes.axis("off")
    figure.axes[-1].legend(*figure.axes[0].get_legend_handles_labels(), loc="center", fontsize=11)
    return figure


def _varies(findings: Findings, quantity: str) -> bool:
    return len({value for values in findings.values(quantity).values() for value in values}) > 1


def _intervals(estimates: Mapping[str, _Estimate], chance: float, colour: str, xlabel: str, title: str) -> Figure:
    """Plot estimates with their intervals, one per row; missing estimates are omitted."""
    shown = {name: estimate for name, estimate in estimates.items() if estimate[0] is not None}
    figure = Figure(figsize=(8, 1.3 + 0.42 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    for row, (value, low, high) in enumerate(shown.values()):
        if low is not None and high is not None:
            axes.plot((low, high), (row, row), color=colour, lw=2.5, solid_capstyle="round")
        axes.plot(value or 0, row, "o", color=colour, ms=8, mec="white")
    axes.axvline(chance, color=GREY, lw=1, ls=":")
    axes.set_yticks(range(len(shown)), list(shown))
    axes.set(ylim=(len(shown) - 0.5, -0.5), xlabel=xlabel, title=title)
    return figure


def _means(findings: Findings) -> Figure:
    """Plot the mean image of each class and, for two classes, their difference."""
    thumbnails, labels, names = findings.images.thumbnails, findings.images.labels, findings.tree.classes
    means = {names[label]: thumbnails[labels == label].mean(0) for label in np.unique(labels)}
    shown = list(means.items())[:_MAX_CLASSES]
    count = len(shown) + (len(means) == 2)
    figure = Figure(figsize=(max(2.3 * count, 3), 2.6), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, count))
    for axes, (name, mean) in zip(panels, shown, strict=False):
        axes.imshow(mean, cmap="gray", vmin=0, vmax=255)
        axes.set_title(name)
    if len(means) == 2:
        one, other = means.values()
        image = panels[-1].imshow(other - one, cmap="RdBu_r", vmin=-60, vmax=60)
        panels[-1].set_title("second minus first")
        figure.colorbar(image, ax=panels[-1], shrink=0.8, label="grey values")
    for axes in panels:
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
    return figure


def _group(findings: Findings, group: DuplicateGroup) -> dict[str, Any]:
    """Return the template's data for a group: title, first images (path and JPEG), and number of omitted images."""
    title = ["identical files" if group.identical else "near-duplicates"]
    title += ["in several classes"] if len(group.labels) > 1 else []
    title += ["in several splits"] if len(group.splits) > 1 else []
    members, thumbnails = group.members[:_MAX_MEMBERS], findings.images.thumbnails
    images = [(findings.images.files[member].path, encode_jpeg(thumbnails[member])) for member in members]
    return {"title": ", ".join(title), "images": images, "more": len(group.members) - len(members)}
