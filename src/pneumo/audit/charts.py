"""The audit's figures: distributions of files, AUROCs of shortcuts, patients' alikeness, mean films of the classes."""

from collections.abc import Mapping

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pneumo.audit.findings import QUANTITIES, Findings
from pneumo.audit.tables import PROBES, title
from pneumo.evaluation.figures import COLOURS, GREY, STYLE, encode

_MOST = 6  # classes that colours tell apart


def draw(findings: Findings) -> Mapping[str, bytes]:
    """Draw what there is to see, as SVG files by the figure's name."""
    with rc_context(STYLE):
        figures = {"means": _means(findings)}
        if any(_varies(findings, quantity) for quantity in QUANTITIES):
            figures["distributions"] = _distributions(findings)
        if any(probe.auroc is not None for probe in findings.probes):
            figures["shortcuts"] = _shortcuts(findings)
        if findings.patients.within.names > 1:
            figures["patients"] = _patients(findings)
        return encode(figures, "svg")


def _distributions(findings: Findings) -> Figure:
    """Draw a histogram of each property that varies, a line for each class."""
    shown = {quantity: findings.values(quantity) for quantity in QUANTITIES if _varies(findings, quantity)}
    figure = Figure(figsize=(10, 2.7 if len(shown) < 3 else 5.4), layout="constrained")
    panels = figure.subplots(1 if len(shown) < 3 else 2, 3).flat
    for axes, (quantity, values) in zip(panels, shown.items(), strict=False):
        every = np.concatenate([np.asarray(of_class) for of_class in values.values()])
        bins = np.linspace(every.min(), every.max(), 41)
        for place, (name, of_class) in enumerate(list(values.items())[:_MOST]):
            weights = np.full(len(of_class), 1 / max(len(of_class), 1))
            axes.hist(
                of_class,
                bins,
                weights=weights,
                histtype="step",
                lw=1.8,
                color=COLOURS[place],
                label=name,
            )
        axes.set(xlabel=title(quantity), ylabel="share of the class")
    for axes in figure.axes[len(shown) :]:
        axes.axis("off")
    figure.axes[-1].legend(*figure.axes[0].get_legend_handles_labels(), loc="center", fontsize=11)
    return figure


def _varies(findings: Findings, quantity: str) -> bool:
    return len({value for values in findings.values(quantity).values() for value in values}) > 1


def _shortcuts(findings: Findings) -> Figure:
    """Draw the probes' AUROCs with their intervals."""
    shown = [(p.name, p.auroc, p.low, p.high) for p in findings.probes if p.auroc is not None]
    figure, axes = _rows(len(shown))
    for row, (_, auroc, low, high) in enumerate(shown):
        _point(axes, row, auroc, low, high, COLOURS[0])
    axes.axvline(0.5, color=GREY, lw=1, ls=":")
    axes.set_yticks(range(len(shown)), [PROBES[name] for name, *_ in shown])
    axes.set(
        xlim=(0.35, 1.01),
        xlabel="AUROC (0.5 is chance)",
        title="Labels guessed without findings",
    )
    return figure


def _patients(findings: Findings) -> Figure:
    """Draw how much more alike films of one name are than strangers'."""
    patients = findings.patients
    kinds = {
        "in one split": patients.within,
        "in one split, several subtypes": patients.subtypes,
        "across splits": patients.across,
    }
    shown = {f"{name} ({a.names:,} names)": a for name, a in kinds.items() if a.excess is not None}
    figure, axes = _rows(len(shown))
    for row, alike in enumerate(shown.values()):
        _point(axes, row, alike.excess or 0, alike.low, alike.high, COLOURS[1])
    axes.axvline(0, color=GREY, lw=1, ls=":")
    axes.set_yticks(range(len(shown)), list(shown))
    axes.set(
        xlabel="excess cosine (0: as alike as strangers' films)",
        title="Films that share a patient's name",
    )
    return figure


def _means(findings: Findings) -> Figure:
    """Show the mean film of each class, and for two classes what sets them apart."""
    films, labels, names = (
        findings.pictures.thumbnails,
        findings.pictures.labels,
        findings.tree.classes,
    )
    means = {names[label]: films[labels == label].mean(0) for label in np.unique(labels)}
    shown = list(means.items())[:_MOST]
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


def _rows(count: int) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 1.3 + 0.42 * count), layout="constrained")
    axes = figure.add_subplot()
    axes.set_ylim(count - 0.5, -0.5)
    return figure, axes


def _point(
    axes: Axes,
    row: int,
    value: float,
    low: float | None,
    high: float | None,
    colour: str,
) -> None:
    if low is not None and high is not None:
        axes.plot((low, high), (row, row), color=colour, lw=2.5, solid_capstyle="round")
    axes.plot(value, row, "o", color=colour, ms=8, mec="white")
