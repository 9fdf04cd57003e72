"""Learning, ROC and precision-recall curves of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pneumo.metrics.curves import GRID, Band, Curves, has_both_classes, measure_curves, precision_recall, roc
from pneumo.metrics.intervals import Estimate
from pneumo.metrics.predictions import Predictions
from pneumo.reporting.figures.style import COLOURS, GREY, STYLE, WIDE, class_colours, head, name_run, single
from pneumo.runs.results import Results

CURVES = {"loss": "loss (cross entropy)", "auroc": "AUROC", "accuracy": "accuracy"}
_SIDES = {"train": ("training", COLOURS[4], "--"), "val": ("validation", COLOURS[0], "-")}


def draw_learning_curves(epochs: Sequence[Mapping[str, float]], images: Mapping[str, int], results: Results) -> Figure:
    """Draw loss, AUROC and accuracy of training and validation over epochs, and mark the one that was tested.

    Args:
        epochs: Each epoch's number and metrics, as `pneumo.training.callbacks.History` keeps them.
        images: How many there are in train and val.
        results: The run's.
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


_BOX: dict[str, Any] = {"frameon": True, "edgecolor": "none", "framealpha": 0.8}  # of a legend that curves may cross


class _Shown(NamedTuple):
    """One class's curves; the name is empty where there are no others."""

    name: str
    answers: Predictions
    curves: Curves
    colour: str


def draw_curves(answers: Predictions, results: Results) -> dict[str, Figure]:
    """Draw ROC and precision-recall curve with their bands; of three classes those of each against the rest.

    Nothing is drawn of a class that all images are of, or none.
    """
    sides = [(name, side) for name, side in answers.against_rest.items() if has_both_classes(side)]
    if not sides:
        return {}
    if answers.is_binary:
        auroc, auprc = _area(results, "auroc"), _area(results, "auprc")
        shown = [_Shown("", answers, measure_curves(answers)._replace(auroc=auroc, auprc=auprc), COLOURS[0])]
    else:
        colours = dict(zip(answers.classes, class_colours(len(answers.classes)), strict=True))
        shown = [_Shown(name, side, measure_curves(side), colours[name]) for name, side in sides]
    return {"roc": _draw_roc(shown, results), "precision_recall": _draw_precision_recall(shown, results)}


def _area(results: Results, name: str) -> Estimate:
    """Return an area as results.json has it, with the interval of more resamples."""
    return Estimate(*(float(results[f"test_{name}{end}"]) for end in ("", "_ci_low", "_ci_high")))


def _draw_roc(shown: Sequence[_Shown], results: Results) -> Figure:
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


def _draw_precision_recall(shown: Sequence[_Shown], results: Results) -> Figure:
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
    handles = [entries[label] for label in order]
    axes.legend(handles, order, loc=corner, fontsize=8, title=heading, title_fontsize=8, alignment="left", **_BOX)
