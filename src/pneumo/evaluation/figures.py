"""Figures in one visual language, and those that tell of a single run's test."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from pneumo.errors import ConfigError
from pneumo.evaluation.results import Results, count_tested
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


class Answers(NamedTuple):
    """What a run has answered to its test images.

    Attributes:
        probability: Of the positive class, (N,).
        positive: Whether the image is of that class, (N,).
        called: Whether it was called so, (N,).
        classes: The negative class and the positive one; a class that never comes has no name.
    """

    probability: npt.NDArray[np.float64]
    positive: npt.NDArray[np.bool_]
    called: npt.NDArray[np.bool_]
    classes: tuple[str, str]


def read_answers(folder: Path, results: Results) -> Answers:
    """Read a run's predictions.csv.

    Raises:
        ConfigError: It is missing or damaged.
    """
    path = folder / "predictions.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        probability = np.array([float(line["probability"]) for line in lines])
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"{path}, which a finished run leaves, cannot be read ({error}): put it back, or delete results.json "
            "beside it, and the run is taken for unfinished."
        ) from error
    called = probability > float(results["threshold"])
    positive = called == np.array(
        [line["prediction"] == line["label"] for line in lines]
    )  # whatever the classes' names
    names = [
        next((line["label"] for line, is_it in zip(lines, positive, strict=True) if is_it == x), "") for x in (0, 1)
    ]
    return Answers(probability, positive, called, (names[0], names[1]))


def roc(answers: Answers) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Give 1 - specificity and sensitivity for all thresholds; nothing if one of the classes never comes."""
    if answers.positive.all() or not answers.positive.any():
        return np.empty(0), np.empty(0)
    false, true, _ = roc_curve(answers.positive, answers.probability)
    return false, true


def write_test_figures(folder: Path, results: Results) -> Mapping[str, bytes]:
    """Draw a run's confusion matrix and ROC curve into its figures/, and give the PNG files by their names."""
    answers = read_answers(folder, results)
    with rc_context(STYLE):
        figures = {"confusion_matrix": _confusion(answers, results), "roc": _roc(answers, results)}
    return save(figures, folder / "figures")["png"]


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


def _confusion(answers: Answers, results: Results) -> Figure:
    """Draw the counts of each truth and answer, coloured by their share of the truth."""
    figure, axes = _single(results)
    counts = np.array([[int(((answers.positive == t) & (answers.called == c)).sum()) for c in (0, 1)] for t in (0, 1)])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (truth, answer), count in np.ndenumerate(counts):
        share = shares[truth, answer]
        text = f"{count}\n{share:.1%}"
        axes.text(answer, truth, text, ha="center", va="center", fontsize=14, color="white" if share > 0.5 else "black")
    names = [name or "-" for name in answers.classes]
    axes.set_xticks((0, 1), [f"called\n{name}" for name in names])
    axes.set_yticks((0, 1), names, rotation=90, va="center")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def _roc(answers: Answers, results: Results) -> Figure:
    """Draw the ROC curve, with the point where the threshold is."""
    figure, axes = _single(results)
    axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls=":")
    axes.plot(*roc(answers), color=COLOURS[0], lw=2, label=f"AUROC {results['test_auroc']:.3f}")
    point = (1 - float(results["test_specificity"]), float(results["test_sensitivity"]))
    axes.plot(*point, "o", color=COLOURS[1], ms=9, mec="white", label=f"threshold {results['threshold']:.3g}")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xlabel="1 - specificity", ylabel="sensitivity")
    axes.legend(loc="lower right")
    return figure


def _single(results: Results) -> tuple[Figure, Axes]:
    # Small, so that its text stays readable where TensorBoard shrinks it.
    figure = Figure(figsize=(3.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(
        f"{results['model']} · {results['optimizer']} · seed {results['seed']}\n{count_tested(results):,} test images"
    )
    return figure, axes
