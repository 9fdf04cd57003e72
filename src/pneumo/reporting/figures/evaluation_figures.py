"""Figures of an evaluation: ROC curves, reliability, decision curve, subgroups and score distributions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.ticker import FuncFormatter

from pneumo.common.text import escape_line, format_probability
from pneumo.metrics.calibration import calibration_curve
from pneumo.metrics.curves import GRID, measure_curves, roc
from pneumo.metrics.decision_curve import DecisionCurve
from pneumo.metrics.intervals import Estimate
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.subgroups import Subgroup
from pneumo.reporting.figures.charts import plot_scores, scores_by_class
from pneumo.reporting.figures.style import COLOURS, DARK, GREY, class_colours

MAX_SITES = len(COLOURS)  # in one figure, the largest ones
CAPTIONS = {
    "roc": "ROC curve; circles mark the stored threshold. A band is a pointwise 95 % interval.",
    "calibration": "Reliability: fraction of positive images by predicted probability, with 95 % intervals, above the "
    "number of images. On the dotted line, probabilities are calibrated.",
    "decision_curve": "Decision curve: net benefit per image of treating images above a threshold probability, against "
    "treating all or none. The band is a pointwise 95 % interval.",
    "scores": "Predicted probability by true class, on the logit scale.",
    "subgroups": "AUROC, sensitivity and specificity of each subgroup, with 95 % intervals and the number of images. "
    "Dotted lines mark all images.",
    "stress": "Performance under corruptions of increasing severity, with 95 % intervals.",
}
_FOREST = {"auroc": "AUROC", "sensitivity": "sensitivity", "specificity": "specificity"}
_SIDE = 3.6  # inches; fits a phone's screen
_ROW = 0.27  # inches per subgroup


class NamedSet(NamedTuple):
    """Predictions for a set of images, and their AUROC."""

    name: str
    predictions: Predictions  # binary, with both classes
    auroc: Estimate


def draw_roc(sets: Sequence[NamedSet], reference: NamedSet | None) -> Figure:
    """Plot a ROC curve per set and, dashed, that of the reference; a single set has a confidence band."""
    figure, axes = _panel("ROC curve", bottom=0.13)
    axes.plot([0, 1], [0, 1], color=GREY, lw=1.2, ls=":")
    if reference is not None:
        label = f"{_shorten(reference.name)} {reference.auroc.value:.3f}"
        axes.plot(*roc(reference.predictions), color=DARK, lw=1.2, ls="--", label=label)
    shown = sorted(sets, key=lambda each: -len(each.predictions.label))[:MAX_SITES]
    for each, colour in zip([one for one in sets if one in shown], COLOURS, strict=False):
        if len(sets) == 1:
            axes.fill_between(GRID, *measure_curves(each.predictions).sensitivity, color=colour, alpha=0.2, lw=0)
        label = f"{_shorten(each.name)} {each.auroc.describe()}"
        axes.plot(*roc(each.predictions), color=colour, lw=1.8, label=label)
        positive, detected = each.predictions.positive, each.predictions.predicted > 0
        axes.plot(
            detected[~positive].mean(), detected[positive].mean(), "o", color=colour, ms=7, mec="white", clip_on=False
        )
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    _frame(axes.legend(loc="lower right", fontsize=8, title="AUROC", title_fontsize=8, alignment="left"))
    return figure


def draw_reliability(predictions: Predictions) -> Figure:
    """Plot the calibration curve of binary predictions above a histogram by class."""
    figure = Figure(figsize=(_SIDE, _SIDE + 0.4))
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    figure.subplots_adjust(left=0.19, right=0.96, bottom=0.12, top=0.92, hspace=0.12)
    axes.plot([0, 1], [0, 1], color=GREY, lw=1.2, ls=":")
    bins = calibration_curve(predictions)
    probability, fraction, low, high = np.array([(b.probability, b.fraction, b.low, b.high) for b in bins]).T
    errors = (fraction - low, high - fraction)
    axes.errorbar(probability, fraction, errors, fmt="o-", color=COLOURS[0], lw=1.5, elinewidth=1, ms=4)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="fraction of positives", title="Reliability")
    for (name, scores), colour in zip(scores_by_class(predictions).items(), class_colours(2), strict=True):
        counts, edges = np.histogram(scores, 20, range=(0, 1))
        below.stairs(counts, edges, lw=1.5, color=colour, label=_shorten(name))
    below.set(yscale="log", ylim=(0.7, 40 * len(predictions.label)), xlabel="predicted probability", ylabel="images")
    below.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    below.yaxis.set_label_coords(-0.2, 0.5)  # wide tick labels would move it out of the figure
    below.legend(loc="upper center", fontsize=8, ncols=2)
    return figure


def draw_decision_curve(curve: DecisionCurve, threshold: float | None) -> Figure:
    """Plot the net benefit against the threshold probability, and mark the stored threshold."""
    figure, axes = _panel("Decision curve", left=0.21)
    axes.fill_between(curve.threshold, curve.low, curve.high, color=COLOURS[0], alpha=0.2, lw=0)
    axes.plot(curve.threshold, curve.model, color=COLOURS[0], lw=1.8, label="network")
    axes.plot(curve.threshold, curve.treat_all, color=COLOURS[1], lw=1.4, label="treat all")
    axes.axhline(0, color=DARK, lw=1.2, label="treat none")
    if threshold is not None:
        axes.axvline(threshold, color="#333333", lw=1.2, ls="--", label=f"threshold {format_probability(threshold)}")
    top = max(float(curve.high.max()), float(curve.treat_all.max()), 0.05)
    axes.set(xlim=(0, 1), ylim=(-0.35 * top, 1.3 * top), xlabel="threshold probability", ylabel="net benefit per image")
    _frame(axes.legend(loc="upper right", fontsize=8, ncols=2))
    return figure


def draw_score_distributions(predictions: Predictions, threshold: float | None) -> Figure:
    """Plot a histogram of the positive probability for each class."""
    figure, axes = _panel("Score distributions", left=0.21, bottom=0.18)
    scores = {_shorten(name): values for name, values in scores_by_class(predictions).items()}
    plot_scores(axes, scores, threshold)
    axes.set(xlabel="predicted probability of a positive class\n(logit scale)", ylabel="fraction of images in class")
    axes.set_ylim(top=1.35 * axes.get_ylim()[1])
    _frame(axes.legend(loc="upper center", ncols=2, fontsize=8))
    return figure


def draw_subgroups(groups: Sequence[Subgroup], overall: Mapping[str, Estimate]) -> Figure:
    """Plot the metrics of each subgroup as a forest plot, one panel per metric."""
    rows = len(groups) + len({group.factor for group in groups})
    height = _ROW * rows + 1.0
    figure = Figure(figsize=(8.6, height))
    panels = figure.subplots(1, len(_FOREST), sharey=True)
    heights, labels = _forest_rows(groups)
    left = (0.4 + 0.08 * max(map(len, labels.values()))) / 8.6  # characters are at most 0.08 inches wide
    figure.subplots_adjust(left=left, right=0.985, bottom=0.45 / height, top=1 - 0.35 / height, wspace=0.08)
    for axes, (name, title) in zip(panels, _FOREST.items(), strict=True):
        if name in overall:
            axes.axvline(overall[name].value, color=DARK, lw=1, ls=":")
        for group, y in zip(groups, heights, strict=True):
            if (estimate := group.estimates.get(name)) is not None:
                value, low, high = estimate
                axes.plot((low, high), (y, y), color=COLOURS[0], lw=2, solid_capstyle="round")
                axes.plot(value, y, "o", color=COLOURS[0], ms=6, mec="white")
        axes.set(title=title, xlim=(-0.03, 1.03), ylim=(rows - 0.4, -0.6))
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(list(labels), list(labels.values()))
    for tick, y in zip(panels[0].get_yticklabels(), labels, strict=True):
        tick.set_fontweight("normal" if y in heights else "bold")
    return figure


def _forest_rows(groups: Sequence[Subgroup]) -> tuple[list[int], dict[int, str]]:
    """Return the row of each group, and the labels by row; each factor starts with a row for its name."""
    heights: list[int] = []
    labels: dict[int, str] = {}
    factor = None
    for group in groups:
        if group.factor != factor:
            factor = group.factor
            labels[len(labels)] = _shorten(factor)
        heights.append(len(labels))
        labels[len(labels)] = f"{_shorten(group.level)} ({group.images:,})"
    return heights, labels


def _panel(title: str, left: float = 0.18, bottom: float = 0.14) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_SIDE, _SIDE))
    figure.subplots_adjust(left=left, right=0.96, bottom=bottom, top=0.91)
    axes = figure.add_subplot()
    axes.set_title(title)
    return figure, axes


def _frame(legend: Legend) -> None:
    """Draw a legend on a nearly opaque background, since curves can cross it."""
    legend.set(frame_on=True)
    legend.get_frame().set(edgecolor="none", alpha=0.8)


def _shorten(name: str) -> str:
    line = escape_line(name)  # tick labels are not escaped later
    return (line or "-") if len(line) <= 24 else f"{line[:23]}…"
