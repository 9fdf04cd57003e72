"""Charts of a run: learning curves, ROC, precision-recall, calibration, confusion matrix and score distributions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from scipy.special import logit
from sklearn.metrics import confusion_matrix

from pneumo.common.text import escape_line, format_probability
from pneumo.metrics.calibration import calibration_curve
from pneumo.metrics.curves import GRID, Band, Curves, measure_curves, precision_recall, roc
from pneumo.metrics.predictions import Predictions
from pneumo.reporting.figures.style import COLOURS, GREY, STYLE, WIDE, add_title, class_colours, single_panel, test_size
from pneumo.reporting.generalization import GAP_METRICS, GeneralizationGap
from pneumo.runs.results import Results, recorded_estimate, run_title

Scores = Mapping[str, npt.NDArray[np.float64]]
CURVES = {"loss": "Cross-entropy loss", "auroc": "AUROC", "accuracy": "Accuracy"}
_BIN_EDGES = np.linspace(-10, 10, 41)  # logits
_TICKS = (0.0001, 0.01, 0.5, 0.99, 0.9999)
_STAGES = {"train": ("training", COLOURS[4], "--"), "val": ("validation", COLOURS[0], "-")}


class _ClassCurves(NamedTuple):
    name: str  # empty if there are only two classes
    predictions: Predictions
    curves: Curves
    colour: str


def draw_learning_curves(epochs: Sequence[Mapping[str, float]], images: Mapping[str, int], results: Results) -> Figure:
    """Plot loss, AUROC and accuracy of training and validation over epochs, and mark the tested epoch.

    `epochs` are the metrics that `pneumo.training.callbacks.History` stores; `images` counts those of train and val.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDE, 3.1))
        figure.subplots_adjust(left=0.07, right=0.985, bottom=0.26, top=0.79, wspace=0.25)
        count, best = int(results["epochs"]), int(results["best_epoch"])
        numbers = [each["epoch"] for each in epochs]  # incomplete if an earlier version started the run
        for axes, (name, title) in zip(figure.subplots(1, len(CURVES)), CURVES.items(), strict=True):
            axes.axvline(best, color="#333333", lw=1.2, ls=":", label=f"tested: epoch {best}")
            for stage, (stage_name, colour, dashes) in _STAGES.items():
                values = [each[f"{stage}/{name}"] for each in epochs]
                label = f"{stage_name} ({images[stage]:,} images)"
                axes.plot(numbers, values, f"o{dashes}", color=colour, lw=1.8, ms=4, mec="white", mew=0.5, label=label)
            axes.set(title=title, xlabel="epoch", xlim=(0.5, count + 0.5))
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        figure.legend(*axes.get_legend_handles_labels(), loc="lower center", ncols=3, fontsize=9)
        add_title(figure, f"{run_title(results)}, {count} epoch{'s' if count > 1 else ''}")
    return figure


def draw_curves(predictions: Predictions, results: Results) -> dict[str, Figure]:
    """Plot ROC and precision-recall curves with their bands; with more classes, one curve per class against the rest.

    A class is omitted if all images or no images belong to it.
    """
    binary = [(name, each) for name, each in predictions.one_vs_rest.items() if each.has_both_classes]
    if not binary:
        return {}
    if len(predictions.classes) == 2:
        # results.json has the areas with intervals from more resamples.
        auroc, auprc = (recorded_estimate(results, name) for name in ("auroc", "auprc"))
        shown = [
            _ClassCurves("", predictions, measure_curves(predictions)._replace(auroc=auroc, auprc=auprc), COLOURS[0])
        ]
    else:
        colours = dict(zip(predictions.classes, class_colours(len(predictions.classes)), strict=True))
        shown = [_ClassCurves(name, each, measure_curves(each), colours[name]) for name, each in binary]
    return {"roc": _draw_roc(shown, results), "precision_recall": _draw_precision_recall(shown, results)}


def _draw_roc(shown: Sequence[_ClassCurves], results: Results) -> Figure:
    figure, axes = single_panel(results)
    axes.plot([0, 1], [0, 1], color=GREY, lw=1.2, ls=":", label="chance")
    for name, predictions, curves, colour in shown:
        _fill_band(axes, curves.sensitivity, colour)
        axes.plot(*roc(predictions), color=colour, lw=1.8, label=f"{name or 'AUROC'} {curves.auroc.describe()}")
    if not shown[0].name:
        _mark_threshold(axes, 1 - float(results["test_specificity"]), float(results["test_sensitivity"]), results)
    axes.set(xlabel="1 - specificity", ylabel="sensitivity")
    _add_legend(axes, "lower right", "AUROC" if shown[0].name else "")
    return figure


def _draw_precision_recall(shown: Sequence[_ClassCurves], results: Results) -> Figure:
    figure, axes = single_panel(results)
    for name, predictions, curves, colour in shown:
        prevalence = float(predictions.positive.mean())
        label = "chance (prevalence)" if name else f"chance (prevalence {prevalence:.3f})"
        axes.axhline(prevalence, color=colour if name else GREY, lw=1.2, ls=":", label=label)
        _fill_band(axes, curves.precision, colour)
        line = precision_recall(predictions)
        axes.plot(*line, color=colour, lw=1.8, drawstyle="steps", label=f"{name or 'AP'} {curves.auprc.describe()}")
    true_positives = float(results["test_true_positives"])
    detected = true_positives + float(results["test_false_positives"])
    if detected and not shown[0].name:
        _mark_threshold(axes, float(results["test_sensitivity"]), true_positives / detected, results)
    axes.set(xlabel="recall (sensitivity)", ylabel="precision")
    _add_legend(axes, "lower left", "average precision" if shown[0].name else "")
    return figure


def _fill_band(axes: Axes, band: Band, colour: str) -> None:
    axes.fill_between(GRID, *band, color=colour, alpha=0.2, lw=0, label="95 % band")


def _mark_threshold(axes: Axes, x: float, y: float, results: Results) -> None:
    label = f"threshold {format_probability(float(results['threshold']))}"
    axes.plot(x, y, "o", color=COLOURS[1], ms=8, mec="white", label=label, clip_on=False)


def _add_legend(axes: Axes, corner: Literal["lower left", "lower right"], title: str) -> None:
    """Set both axes to the unit square, and add a legend without repeated labels."""
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    entries = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    order = sorted(entries, key=lambda label: label.startswith("95") + 2 * label.startswith("chance"))
    heading = f"{title}, one class against the rest" if title else None
    style: dict[str, Any] = {"frameon": True, "edgecolor": "none", "framealpha": 0.8}  # curves may cross the legend
    style |= {"loc": corner, "fontsize": 8, "title": heading, "title_fontsize": 8, "alignment": "left"}
    axes.legend([entries[label] for label in order], order, **style)


def draw_confusion(predictions: Predictions, results: Results) -> Figure:
    """Plot the confusion matrix, coloured and annotated with the percentage of each true class."""
    figure, axes = single_panel(results)
    indices = range(len(predictions.classes))
    counts = confusion_matrix(predictions.label, predictions.predicted, labels=indices)
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        fraction = fractions[row, column]
        colour, size = "white" if fraction > 0.5 else "black", max(4, 18 - 2 * len(predictions.classes))
        axes.text(column, row, f"{count}\n{fraction:.1%}", ha="center", va="center", fontsize=size, color=colour)
    names = [escape_line(name) or "-" for name in predictions.classes]
    axes.set_xticks(indices, names)
    axes.set_yticks(indices, names, rotation=90, va="center")
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def draw_scores(predictions: Predictions, results: Results) -> Figure:
    """Plot a histogram of the positive probability for each class; of more than two, all but the first are positive."""
    figure, axes = single_panel(results)
    negative, *positive = predictions.classes
    plot_scores(axes, scores_by_class(predictions), float(results["threshold"]) if len(positive) == 1 else None)
    target = positive[0] or "the positive class" if len(positive) == 1 else f"not {negative}"
    axes.set(xlabel=f"predicted probability of {target}\n(logit scale)", ylabel="fraction of images in class")
    axes.set_ylim(top=1.35 * axes.get_ylim()[1])
    axes.legend(loc="upper center", ncols=2, fontsize=8)
    figure.subplots_adjust(bottom=0.2)
    return figure


def draw_calibration(predictions: Predictions, results: Results) -> Figure:
    """Plot the calibration curve above a histogram of the predicted probabilities."""
    figure, panel = single_panel(results)
    panel.remove()
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    figure.subplots_adjust(left=0.21, hspace=0.12)  # room for wide tick labels
    axes.plot([0, 1], [0, 1], color=GREY, lw=1.2, ls=":")
    curve = calibration_curve(predictions)
    probability, fraction, low, high = np.array([(b.probability, b.fraction, b.low, b.high) for b in curve]).T

    text = f"ECE {results['test_ece']:.3f}\nBrier {results['test_brier']:.3f}"
    errors = (fraction - low, high - fraction)
    axes.errorbar(probability, fraction, errors, fmt="o-", color=COLOURS[0], lw=1.5, elinewidth=1, ms=4)
    axes.text(0.02, 0.98, text, transform=axes.transAxes, va="top")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="fraction of positives")
    for (name, scores), colour in zip(scores_by_class(predictions).items(), class_colours(2), strict=True):
        counts, edges = np.histogram(scores, 30, range=(0, 1))
        below.stairs(counts, edges, lw=1.5, color=colour, label=name)
    below.set(yscale="log", ylim=(0.7, 40 * len(predictions.positive)), xlabel="predicted probability", ylabel="images")
    below.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    below.legend(loc="upper center", fontsize=8, ncols=2)
    return figure


def draw_gap(gap: GeneralizationGap, results: Results) -> Figure:
    """Plot score histograms by class on validation and test images, next to the metrics of both."""
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDE, 4.2))
        left = figure.add_gridspec(2, 1, left=0.08, right=0.56, bottom=0.22, top=0.83, hspace=0.35)
        upper = figure.add_subplot(left[0])
        lower = figure.add_subplot(left[1], sharex=upper)
        right = figure.add_subplot(figure.add_gridspec(1, 1, left=0.7, right=0.98, bottom=0.27, top=0.83)[0])
        for axes, predictions, name in ((upper, gap.validation, "validation"), (lower, gap.test, "test")):
            plot_scores(axes, scores_by_class(predictions), float(results["threshold"]))
            axes.set(title=f"{len(predictions.positive):,} {name} images", ylabel="fraction of class")
        upper.tick_params(labelbottom=False)
        lower.axvline(*_logit([gap.oracle_threshold]), color="#777777", lw=1.5, ls=":", label="best on test (oracle)")
        lower.set_xlabel("predicted probability (logit scale)")
        lower.legend(loc="upper center", bbox_to_anchor=(0.5, -0.36), ncols=4, fontsize=8, columnspacing=1.2)
        _plot_metrics(right, gap)
        add_title(figure, f"{run_title(results)}, validation against {test_size(results)}")
    return figure


def _plot_metrics(axes: Axes, gap: GeneralizationGap) -> None:
    sets = {"validation": (-0.13, gap.validation_metrics, GREY), "test": (0.13, gap.test_metrics, COLOURS[2])}
    for name, (offset, metrics, colour) in sets.items():
        value, low, high = np.array([metrics[metric] for metric in GAP_METRICS]).T
        y = np.arange(len(GAP_METRICS)) + offset
        axes.errorbar(value, y, xerr=(value - low, high - value), fmt="o", color=colour, capsize=3, label=name)
    last = len(GAP_METRICS) - 1
    axes.plot(gap.oracle, last + 0.13, "D", mfc="none", mec=COLOURS[2], ms=8, label="best threshold on test (oracle)")
    axes.set_yticks(range(len(GAP_METRICS)), [title.replace(" ", "\n") for title in GAP_METRICS.values()])
    axes.set(ylim=(last + 0.6, -0.6), title="Metrics with 95 % intervals")
    (oracle, *handles), (oracle_label, *labels) = axes.get_legend_handles_labels()
    axes.legend([*handles, oracle], [*labels, oracle_label], loc="upper center", bbox_to_anchor=(0.4, -0.1), fontsize=8)


def plot_scores(axes: Axes, scores: Scores, threshold: float | None) -> None:
    """Plot a histogram of the positive probability on the logit scale for each class, and the threshold."""
    for (name, of_class), colour in zip(scores.items(), class_colours(len(scores)), strict=True):
        fractions = np.histogram(_logit(of_class), _BIN_EDGES)[0] / max(len(of_class), 1)
        axes.stairs(fractions, _BIN_EDGES, fill=True, color=colour, alpha=0.45)
        axes.stairs(fractions, _BIN_EDGES, color=colour, lw=1.2, label=name)
    if threshold is not None:
        label = f"threshold {format_probability(threshold)}"
        axes.axvline(*_logit([threshold]), color="#333333", lw=1.5, ls="--", label=label)
    axes.set_xticks(_logit(_TICKS), [f"{tick:g}" for tick in _TICKS])
    axes.set(xlim=(-10.2, 10.2))


def scores_by_class(predictions: Predictions) -> Scores:
    """Return the positive probabilities of the images of each class; a class without a name is shown as dashes."""
    probability = predictions.positive_probability
    return {name or "-" * (k + 1): probability[predictions.label == k] for k, name in enumerate(predictions.classes)}


def _logit(probability: Iterable[float]) -> Sequence[float]:
    """Compute logits, clipped to the range of the histogram."""
    return [float(score) for score in np.clip(logit(np.asarray(probability)), -9.99, 9.99)]
