"""Figures in one visual language, and those that tell of a single run's test."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import logit
from sklearn.metrics import auc, roc_curve

from pneumo.evaluation.answers import Answers, read_answers, read_class_answers
from pneumo.evaluation.calibration import calibration_curve
from pneumo.evaluation.results import Results, count_tested
from pneumo.evaluation.shift import SHOWN, Shift, read_shift
from pneumo.files import atomic_path

# Okabe and Ito's colours, which the colour-blind tell apart too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#B8B8B8"
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "legend.frameon": False,
    "svg.hashsalt": "pneumo",  # the same figure is the same file
}
Files = dict[str, dict[str, bytes]]
Numbers = npt.NDArray[np.int64]


def roc(answers: Answers) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Give 1 - specificity and sensitivity for all thresholds; nothing if one of the classes never comes."""
    if answers.positive.all() or not answers.positive.any():
        return np.empty(0), np.empty(0)
    false, true, _ = roc_curve(answers.positive, answers.probability)
    return false, true


def write_test_figures(folder: Path, results: Results) -> Mapping[str, bytes]:
    """Draw a run's test into its figures/, and give the PNG files by their names.

    Confusion matrix, ROC curve, calibration curve, and where there is a validation.csv what changed since validation;
    of subtypes the confusion matrix and the ROC curves.
    """
    if results["task"] == "subtype":
        return save(draw_subtypes(folder, results), folder / "figures")["png"]
    answers = read_answers(folder, results)
    truth, called = answers.positive.astype(np.int64), answers.called.astype(np.int64)
    with rc_context(STYLE):
        figures = {
            "confusion_matrix": _confusion(truth, called, answers.classes, results),
            "roc": _roc(answers, results),
            "calibration": _calibration(answers, results),
        }
        if isinstance(shift := read_shift(folder, results), Shift):
            figures["shift"] = draw_shift(shift, results)
    return save(figures, folder / "figures")["png"]


def draw_subtypes(folder: Path, results: Results) -> dict[str, Figure]:
    """Draw the confusion matrix of three classes and the ROC curve of each against the others."""
    answers = read_class_answers(folder)
    with rc_context(STYLE):
        figure, axes = _single(results)
        axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls=":")
        for number, name in enumerate(answers.classes):
            own = answers.label == number
            if own.any() and not own.all():
                false, true, _ = roc_curve(own, answers.probability[:, number])
                axes.plot(false, true, color=COLOURS[number], lw=1.6, label=f"{name} {auc(false, true):.3f}")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xlabel="1 - specificity", ylabel="sensitivity")
        axes.legend(loc="lower right", title="AUROC, one against the rest", fontsize=8, title_fontsize=8)
        matrix = _confusion(answers.label, answers.prediction, answers.classes, results)
    return {"confusion_matrix": matrix, "roc": figure}


def draw_shift(shift: Shift, results: Results) -> Figure:
    """Draw the scores of each class on validation and test images, and what they come to."""
    with rc_context(STYLE):
        figure = Figure(figsize=(8.6, 4.2), layout="constrained")
        grid = figure.add_gridspec(2, 2, width_ratios=(3, 2))
        upper, side = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[:, 1])
        lower = figure.add_subplot(grid[1, 0], sharex=upper)
        for axes, answers, name in ((upper, shift.validation, "validation"), (lower, shift.test, "test")):
            _scores(axes, answers, f"{len(answers.positive):,} {name} images", float(results["threshold"]))
        upper.tick_params(labelbottom=False)
        lower.axvline(*_logit([shift.oracle_threshold]), color="#777777", lw=1.5, ls=":", label="best on test (oracle)")
        lower.set_xlabel("predicted probability, logit scale")
        lower.legend(loc="upper center", bbox_to_anchor=(0.5, -0.32), ncols=4, fontsize=8)  # of both
        _sides(side, shift)
    figure.suptitle(_title(results).replace("\n", ", from validation to "), x=0.01, ha="left", fontsize=12)
    return figure


def _scores(axes: Axes, answers: Answers, title: str, threshold: float) -> None:
    """Draw how often each class has which probability."""
    for sign, colour in ((False, COLOURS[1]), (True, COLOURS[0])):
        scores = _logit(answers.probability[answers.positive == sign])
        share = np.full(len(scores), 1 / len(scores))
        axes.hist(
            scores, list(np.linspace(-10, 10, 41)), weights=share, color=colour, alpha=0.55, label=answers.classes[sign]
        )
    axes.axvline(*_logit([threshold]), color="#333333", lw=1.5, ls="--", label="threshold")
    ticks = (0.0001, 0.01, 0.5, 0.99, 0.9999)
    axes.set_xticks(_logit(ticks), [f"{tick:g}" for tick in ticks])
    axes.set(title=title, ylabel="share of class", xlim=(-10.2, 10.2))


def _sides(axes: Axes, shift: Shift) -> None:
    """Draw the metrics of validation and test beside each other."""
    for offset, found, colour, side in (
        (-0.13, shift.held_out, GREY, "validation"),
        (0.13, shift.official, COLOURS[2], "test"),
    ):
        for place, each in enumerate(found[name] for name in SHOWN):
            error = [[each.value - each.low], [each.high - each.value]]
            label = side if place == 0 else "_"
            axes.errorbar(each.value, place + offset, xerr=error, fmt="o", color=colour, capsize=3, label=label)
    last = len(SHOWN) - 1
    axes.plot(shift.oracle, last + 0.13, "D", mfc="none", mec=COLOURS[2], ms=8, label="best threshold on test (oracle)")
    axes.set_yticks(range(len(SHOWN)), [title.replace(" ", "\n") for title in SHOWN.values()])
    axes.set(ylim=(last + 0.6, -0.6), title="with 95 % intervals")
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.08), fontsize=8)


def _logit(probability: Iterable[float]) -> list[float]:
    """Stretch both ends; what lies beyond 10 is put there."""
    return [float(score) for score in np.clip(logit(np.asarray(probability)), -9.99, 9.99)]


def save(figures: Mapping[str, Figure], folder: Path) -> Files:
    """Write each figure as PNG and SVG, and give the files' content by suffix and name."""
    rendered = {
        suffix: {name: _render(figure, suffix) for name, figure in figures.items()} for suffix in ("png", "svg")
    }
    for suffix, files in rendered.items():
        for name, content in files.items():
            with atomic_path(folder / f"{name}.{suffix}") as path:
                path.write_bytes(content)
    return rendered


def _render(figure: Figure, suffix: str) -> bytes:
    stream = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(stream, format=suffix, dpi=150, metadata={"Date": None} if suffix == "svg" else None)
    return stream.getvalue()


def _confusion(truth: Numbers, called: Numbers, classes: Sequence[str], results: Results) -> Figure:
    """Draw the counts of each truth and answer, coloured by their share of the truth."""
    figure, axes = _single(results)
    places = range(len(classes))
    counts = np.array([[int(((truth == t) & (called == c)).sum()) for c in places] for t in places])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, answer), count in np.ndenumerate(counts):
        share = shares[row, answer]
        text = f"{count}\n{share:.1%}"
        colour, size = "white" if share > 0.5 else "black", 18 - 2 * len(classes)
        axes.text(answer, row, text, ha="center", va="center", fontsize=size, color=colour)
    names = [name or "-" for name in classes]
    axes.set_xticks(places, [f"called\n{name}" for name in names])
    axes.set_yticks(places, names, rotation=90, va="center")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def _roc(answers: Answers, results: Results) -> Figure:
    """Draw the ROC curve, with the point where the threshold is."""
    figure, axes = _single(results)
    axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls=":")
    low, high = results["test_auroc_ci_low"], results["test_auroc_ci_high"]
    label = f"AUROC {results['test_auroc']:.3f}\n({low:.3f} to {high:.3f})"
    axes.plot(*roc(answers), color=COLOURS[0], lw=2, label=label)
    point = (1 - float(results["test_specificity"]), float(results["test_sensitivity"]))
    axes.plot(*point, "o", color=COLOURS[1], ms=9, mec="white", label=f"threshold {results['threshold']:.3g}")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xlabel="1 - specificity", ylabel="sensitivity")
    axes.legend(loc="lower right")
    return figure


def _calibration(answers: Answers, results: Results) -> Figure:
    """Draw shares of positives against what the probabilities say, and below it how many images say it."""
    figure, axes = _single(results)
    axes.remove()
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.set_title(_title(results))
    axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls=":")
    curve = calibration_curve(answers)
    probability, share = [each.probability for each in curve], [each.share for each in curve]
    errors = [[each.share - each.low for each in curve], [each.high - each.share for each in curve]]
    text = f"ECE {results['test_ece']:.3f}\nBrier {results['test_brier']:.3f}"
    axes.errorbar(probability, share, errors, fmt="o-", color=COLOURS[0], lw=1.5, elinewidth=1, ms=4)
    axes.text(0.02, 0.98, text, transform=axes.transAxes, va="top")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="share of positives")
    for sign, colour in ((False, COLOURS[1]), (True, COLOURS[0])):
        chosen = answers.probability[answers.positive == sign]
        name = answers.classes[int(sign)] or "-"
        below.hist(chosen, 30, range=(0, 1), histtype="step", lw=1.5, color=colour, label=name)
    below.set(yscale="log", ylim=(0.7, 40 * len(answers.positive)), xlabel="predicted probability", ylabel="images")
    below.legend(loc="upper center", fontsize=8, ncols=2)
    return figure


def _title(results: Results) -> str:
    return (
        f"{results['model']} · {results['optimizer']} · seed {results['seed']}\n{count_tested(results):,} test images"
    )


def _single(results: Results) -> tuple[Figure, Axes]:
    # Small, so that its text stays readable where TensorBoard shrinks it.
    figure = Figure(figsize=(3.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(_title(results))
    return figure, axes
