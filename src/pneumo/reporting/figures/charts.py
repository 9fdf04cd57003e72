"""Charts of a run: learning, ROC and calibration curves, confusion matrix, scores, validation against test."""

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

from pneumo.common.text import escape_line
from pneumo.metrics.calibration import calibration_curve
from pneumo.metrics.curves import GRID, Band, Curves, measure_curves, precision_recall, roc
from pneumo.metrics.intervals import Estimate
from pneumo.metrics.predictions import Predictions
from pneumo.reporting.figures.style import COLOURS, GREY, STYLE, WIDE, class_colours, head, single, tested
from pneumo.reporting.generalization import SHOWN, Shift
from pneumo.runs.results import Results, name_run, recorded_estimate

Scores = Mapping[str, npt.NDArray[np.float64]]
CURVES = {"loss": "loss (cross entropy)", "auroc": "AUROC", "accuracy": "accuracy"}
_EDGES = np.linspace(-10, 10, 41)
_TICKS = (0.0001, 0.01, 0.5, 0.99, 0.9999)
_SIDES = {"train": ("training", COLOURS[4], "--"), "val": ("validation", COLOURS[0], "-")}


class _ClassCurves(NamedTuple):
    """One class's curves; the name is empty where there are no others."""

    name: str
    answers: Predictions
    curves: Curves
    colour: str


def draw_learning_curves(epochs: Sequence[Mapping[str, float]], images: Mapping[str, int], results: Results) -> Figure:
    """Draw loss, AUROC and accuracy of training and validation over epochs, and mark the one that was tested.

    `epochs` are as `pneumo.training.callbacks.History` keeps them; `images` counts those of train and val.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDE, 3.1))
        figure.subplots_adjust(left=0.07, right=0.985, bottom=0.26, top=0.79, wspace=0.25)
        count, best = int(results["epochs"]), int(results["best_epoch"])
        numbers = [each["epoch"] for each in epochs]  # not all, if an older version began the run
        for axes, (name, title) in zip(figure.subplots(1, len(CURVES)), CURVES.items(), strict=True):
            axes.axvline(best, color="#333333", lw=1.2, ls=":", label=f"tested: epoch {best}")
            for side, (words, colour, dashes) in _SIDES.items():
                values = [each[f"{side}/{name}"] for each in epochs]
                label = f"{words} ({images[side]:,} images)"
                axes.plot(numbers, values, f"o{dashes}", color=colour, lw=1.8, ms=4, mec="white", mew=0.5, label=label)
            axes.set(title=title, xlabel="epoch", xlim=(0.5, count + 0.5))
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        figure.legend(*axes.get_legend_handles_labels(), loc="lower center", ncols=3, fontsize=9)
        head(figure, f"{name_run(results)}, {count} epoch{'s' if count > 1 else ''}")
    return figure


def draw_curves(answers: Predictions, results: Results) -> dict[str, Figure]:
    """Draw ROC and precision-recall curve with their bands; of three classes those of each against the rest.

    Nothing is drawn of a class that all images are of, or none.
    """
    sides = [(name, side) for name, side in answers.against_rest.items() if side.has_both_classes]
    if not sides:
        return {}
    if len(answers.classes) == 2:
        # As results.json has the areas, with the intervals of more resamples.
        auroc, auprc = (recorded_estimate(results, name) for name in ("auroc", "auprc"))
        shown = [_ClassCurves("", answers, measure_curves(answers)._replace(auroc=auroc, auprc=auprc), COLOURS[0])]
    else:
        colours = dict(zip(answers.classes, class_colours(len(answers.classes)), strict=True))
        shown = [_ClassCurves(name, side, measure_curves(side), colours[name]) for name, side in sides]
    return {"roc": _draw_roc(shown, results), "precision_recall": _draw_precision_recall(shown, results)}


def _draw_roc(shown: Sequence[_ClassCurves], results: Results) -> Figure:
    figure, axes = single(results)
    axes.plot([0, 1], [0, 1], color=GREY, lw=1.2, ls=":", label="chance")
    for name, answers, curves, colour in shown:
        _fill(axes, curves.sensitivity, colour)
        axes.plot(*roc(answers), color=colour, lw=1.8, label=_say(name or "AUROC", curves.auroc))
    if not shown[0].name:
        _mark(axes, 1 - float(results["test_specificity"]), float(results["test_sensitivity"]), results)
    axes.set(xlabel="1 - specificity", ylabel="sensitivity")
    _finish(axes, "lower right", "AUROC" if shown[0].name else "")
    return figure


def _draw_precision_recall(shown: Sequence[_ClassCurves], results: Results) -> Figure:
    figure, axes = single(results)
    for name, answers, curves, colour in shown:
        prevalence = float(answers.positive.mean())
        label = "chance: prevalence" if name else f"chance: prevalence {prevalence:.3f}"
        axes.axhline(prevalence, color=colour if name else GREY, lw=1.2, ls=":", label=label)
        _fill(axes, curves.precision, colour)
        line = precision_recall(answers)
        axes.plot(*line, color=colour, lw=1.8, drawstyle="steps", label=_say(name or "AP", curves.auprc))
    called = float(results["test_true_positives"]) + float(results["test_false_positives"])
    if called and not shown[0].name:
        _mark(axes, float(results["test_sensitivity"]), float(results["test_true_positives"]) / called, results)
    axes.set(xlabel="recall (sensitivity)", ylabel="precision")
    _finish(axes, "lower left", "average precision" if shown[0].name else "")
    return figure


def _fill(axes: Axes, band: Band, colour: str) -> None:
    axes.fill_between(GRID, *band, color=colour, alpha=0.2, lw=0, label="95 % band")


def _say(name: str, area: Estimate) -> str:
    return f"{name} {area.value:.3f} ({area.low:.3f} to {area.high:.3f})"


def _mark(axes: Axes, x: float, y: float, results: Results) -> None:
    label = f"threshold {float(results['threshold']):.3g}"
    axes.plot(x, y, "o", color=COLOURS[1], ms=8, mec="white", label=label, clip_on=False)


def _finish(axes: Axes, corner: Literal["lower left", "lower right"], title: str) -> None:
    """Set the square of both axes, and a legend that names each kind of line once."""
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    entries = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    order = sorted(entries, key=lambda label: label.startswith("95") + 2 * label.startswith("chance"))
    heading = f"{title}, one against the rest" if title else None
    style: dict[str, Any] = {"frameon": True, "edgecolor": "none", "framealpha": 0.8}  # curves may cross it
    style |= {"loc": corner, "fontsize": 8, "title": heading, "title_fontsize": 8, "alignment": "left"}
    axes.legend([entries[label] for label in order], order, **style)


def draw_confusion(answers: Predictions, results: Results) -> Figure:
    """Draw the counts of each truth and answer, coloured by their share of the truth."""
    figure, axes = single(results)
    places = range(len(answers.classes))
    counts = confusion_matrix(answers.label, answers.predicted, labels=places)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        share = shares[row, column]
        colour, size = "white" if share > 0.5 else "black", 18 - 2 * len(answers.classes)
        axes.text(column, row, f"{count}\n{share:.1%}", ha="center", va="center", fontsize=size, color=colour)
    names = [escape_line(name) or "-" for name in answers.classes]
    axes.set_xticks(places, [f"called\n{name}" for name in names])
    axes.set_yticks(places, names, rotation=90, va="center")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def draw_scores(answers: Predictions, results: Results) -> Figure:
    """Draw how often each class has which probability of the positive class, or, of three, of any but the first."""
    figure, axes = single(results)
    negative, *positive = answers.classes
    _scores(axes, _by_class(answers), float(results["threshold"]) if len(positive) == 1 else None)
    words = positive[0] or "the positive class" if len(positive) == 1 else f"not {negative}"
    axes.set(xlabel=f"predicted probability of {words}\n(logit scale)", ylabel="share of the class's images")
    axes.set_ylim(top=1.35 * axes.get_ylim()[1])
    axes.legend(loc="upper center", ncols=2, fontsize=8)
    figure.subplots_adjust(bottom=0.2)
    return figure


def draw_calibration(answers: Predictions, results: Results) -> Figure:
    """Draw shares of positives against what the probabilities say, and below it how many images say it."""
    figure, whole = single(results)
    whole.remove()
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    figure.subplots_adjust(hspace=0.12)
    axes.plot([0, 1], [0, 1], color=GREY, lw=1.2, ls=":")
    curve = calibration_curve(answers)
    probability, share, low, high = np.array([(b.probability, b.fraction, b.low, b.high) for b in curve]).T
    text = f"ECE {results['test_ece']:.3f}\nBrier {results['test_brier']:.3f}"
    axes.errorbar(
        probability, share, (share - low, high - share), fmt="o-", color=COLOURS[0], lw=1.5, elinewidth=1, ms=4
    )
    axes.text(0.02, 0.98, text, transform=axes.transAxes, va="top")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="share of positives")
    for (name, scores), colour in zip(_by_class(answers).items(), class_colours(2), strict=True):
        counts, edges = np.histogram(scores, 30, range=(0, 1))
        below.stairs(counts, edges, lw=1.5, color=colour, label=name)
    below.set(yscale="log", ylim=(0.7, 40 * len(answers.positive)), xlabel="predicted probability", ylabel="images")
    below.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    below.legend(loc="upper center", fontsize=8, ncols=2)
    return figure


def draw_shift(shift: Shift, results: Results) -> Figure:
    """Draw the scores of each class on validation and test images, and what they come to."""
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDE, 4.2))
        left = figure.add_gridspec(2, 1, left=0.08, right=0.56, bottom=0.22, top=0.83, hspace=0.35)
        upper = figure.add_subplot(left[0])
        lower = figure.add_subplot(left[1], sharex=upper)
        side = figure.add_subplot(figure.add_gridspec(1, 1, left=0.7, right=0.98, bottom=0.27, top=0.83)[0])
        for axes, answers, name in ((upper, shift.validation, "validation"), (lower, shift.test, "test")):
            _scores(axes, _by_class(answers), float(results["threshold"]))
            axes.set(title=f"{len(answers.positive):,} {name} images", ylabel="share of class")
        upper.tick_params(labelbottom=False)
        lower.axvline(*_logit([shift.oracle_threshold]), color="#777777", lw=1.5, ls=":", label="best on test (oracle)")
        lower.set_xlabel("predicted probability, logit scale")
        lower.legend(loc="upper center", bbox_to_anchor=(0.5, -0.36), ncols=4, fontsize=8, columnspacing=1.2)
        _sides(side, shift)
        head(figure, f"{name_run(results)}, from validation to {tested(results)}")
    return figure


def _sides(axes: Axes, shift: Shift) -> None:
    sides = {"validation": (-0.13, shift.held_out, GREY), "test": (0.13, shift.official, COLOURS[2])}
    for side, (offset, found, colour) in sides.items():
        value, low, high = np.array([found[name] for name in SHOWN]).T
        places = np.arange(len(SHOWN)) + offset
        axes.errorbar(value, places, xerr=(value - low, high - value), fmt="o", color=colour, capsize=3, label=side)
    last = len(SHOWN) - 1
    axes.plot(shift.oracle, last + 0.13, "D", mfc="none", mec=COLOURS[2], ms=8, label="best threshold on test (oracle)")
    axes.set_yticks(range(len(SHOWN)), [title.replace(" ", "\n") for title in SHOWN.values()])
    axes.set(ylim=(last + 0.6, -0.6), title="with 95 % intervals")
    (oracle, *drawn), (word, *words) = axes.get_legend_handles_labels()
    axes.legend([*drawn, oracle], [*words, word], loc="upper center", bbox_to_anchor=(0.4, -0.1), fontsize=8)


def _scores(axes: Axes, scores: Scores, threshold: float | None) -> None:
    for (name, of_class), colour in zip(scores.items(), class_colours(len(scores)), strict=True):
        shares = np.histogram(_logit(of_class), _EDGES)[0] / max(len(of_class), 1)
        axes.stairs(shares, _EDGES, fill=True, color=colour, alpha=0.45)
        axes.stairs(shares, _EDGES, color=colour, lw=1.2, label=name)
    if threshold is not None:
        axes.axvline(*_logit([threshold]), color="#333333", lw=1.5, ls="--", label=f"threshold {threshold:.3g}")
    axes.set_xticks(_logit(_TICKS), [f"{tick:g}" for tick in _TICKS])
    axes.set(xlim=(-10.2, 10.2))


def _by_class(answers: Predictions) -> Scores:
    """Return the positive probabilities of each class's images; a class that never comes has none, and no name."""
    probability = answers.positive_probability
    return {name or "-" * (k + 1): probability[answers.label == k] for k, name in enumerate(answers.classes)}


def _logit(probability: Iterable[float]) -> Sequence[float]:
    """Stretch both ends; what lies beyond 10 is put there."""
    return [float(score) for score in np.clip(logit(np.asarray(probability)), -9.99, 9.99)]
