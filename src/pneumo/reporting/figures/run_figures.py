"""All figures of a run with their captions, and image grids of test examples and of a training batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pneumo.common.plain_data import PlainDataError, read_bytes
from pneumo.common.text import format_probability
from pneumo.metrics.predictions import Predictions, distance
from pneumo.reporting.figures.charts import draw_calibration, draw_confusion, draw_curves, draw_gap, draw_scores
from pneumo.reporting.figures.style import COLOURS, STYLE, WIDE, add_title, test_size
from pneumo.reporting.generalization import GeneralizationGap, read_gap
from pneumo.runs.results import Results, run_title

_log = logging.getLogger(__name__)
Indices = npt.NDArray[np.int64]
Images = npt.NDArray[np.uint8]
COLUMNS = 5  # of an image grid
MAX_IMAGES = 3 * COLUMNS  # of an image grid
_SIDE, _GAP = 1.54, 0.15  # inches
_MAX_BYTES = 16 << 20  # of an SVG file
_RIGHT, _WRONG = COLOURS[2], COLOURS[1]
# In display order.
CAPTIONS = {
    "roc": "ROC curve on the test images with a pointwise 95 % band (stratified bootstrap) and the operating point.",
    "precision_recall": "Precision-recall curve on the test images with a pointwise 95 % band. The dotted line is a "
    "random classifier.",
    "confusion_matrix": "Confusion matrix of the test images: true classes in rows, predicted classes in columns. "
    "Percentages are fractions of the true class.",
    "scores": "Predicted probabilities of the test images by true class. Images above the threshold are predicted "
    "positive.",
    "calibration": "Calibration curve: fraction of positives among test images with similar predicted probability, "
    "with 95 % Wilson intervals.",
    "shift": "Validation and test compared: predicted probabilities by true class, and the resulting metrics.",
    "predictions": "Test images as the network receives them: correct predictions, the most confident errors, and the "
    "least certain predictions.",
    "learning_curves": "Loss, AUROC and accuracy of each epoch. Training values are running means over the epoch; they "
    "include augmentation, dropout and, in the loss, class weights and label smoothing if these are enabled.",
    "training_batch": "Images of the first training batch as the network receives them, after any augmentation.",
}


class RunFigure(NamedTuple):
    """A figure in a run folder: its name, caption and files."""

    name: str
    caption: str
    png: Path
    svg: Path


class Examples(NamedTuple):
    """Indices of example test images, at most COLUMNS of each kind, and the total number of each kind."""

    right: Indices  # evenly spaced over the correctly predicted images, which are sorted by class and name
    wrong: Indices  # most confident wrong predictions, in descending order
    uncertain: Indices  # predictions nearest to the threshold, in ascending order of distance
    right_count: int
    wrong_count: int

    @property
    def kinds(self) -> dict[str, Indices]:
        """Indices by kind, in display order."""
        return {"right": self.right, "wrong": self.wrong, "uncertain": self.uncertain}

    @property
    def indices(self) -> list[int]:
        """All indices, in display order."""
        return [index for indices in self.kinds.values() for index in indices.tolist()]


class _Caption(NamedTuple):
    """Caption of an image: the true class and, for test images, the prediction and whether it is right."""

    truth: str
    prediction: str = ""
    right: bool = False


def run_figures(folder: Path) -> list[RunFigure]:
    """Return the figures in a run folder, in display order."""
    paths = {name: folder / "figures" / name for name in CAPTIONS}
    figures = [
        RunFigure(name, CAPTIONS[name], Path(f"{path}.png"), Path(f"{path}.svg")) for name, path in paths.items()
    ]
    return [figure for figure in figures if figure.png.is_file() and figure.svg.is_file()]


def embed_figures(folder: Path) -> list[tuple[str, str, bytes]]:
    """Return name, caption and SVG of a run's figures; warn of invalid files and skip them."""
    embedded = []
    for figure in run_figures(folder):
        try:
            if figure.svg.resolve().parent != folder.resolve() / "figures":
                raise PlainDataError("it is a link to another folder")  # it could expose any file of this machine
            content = read_bytes(figure.svg, _MAX_BYTES)
            if b"<svg" not in content[:2_000]:
                raise PlainDataError("it is not an SVG file")
        except (FileNotFoundError, PlainDataError) as error:
            _log.warning("%s is not on the page: %s.", figure.svg, error)
            continue
        embedded.append((figure.name, figure.caption, content))
    return embedded


def draw_test(
    folder: Path, predictions: Predictions, results: Results, load: Callable[[Sequence[str]], Images]
) -> dict[str, Figure]:
    """Draw the figures of a run's test, by name.

    These are ROC and precision-recall curves, confusion matrix, score histogram and example images. With two classes,
    there are also the calibration curve and, if the run has a validation.csv, the comparison of validation and test.
    `load` returns the images (n, H, W) of the given paths.
    """
    examples = select_examples(predictions, float(results["threshold"]))
    images = load([predictions.paths[i] for i in examples.indices])
    with rc_context(STYLE):
        figures = {
            **draw_curves(predictions, results),
            "confusion_matrix": draw_confusion(predictions, results),
            "scores": draw_scores(predictions, results),
            "predictions": draw_predictions(predictions, examples, images, results),
        }
        if predictions.is_binary:
            figures["calibration"] = draw_calibration(predictions, results)
            if isinstance(gap := read_gap(folder, results), GeneralizationGap):
                figures["shift"] = draw_gap(gap, results)
    return figures


def select_examples(predictions: Predictions, threshold: float) -> Examples:
    """Select test images to show, deterministically; confidence is the distance from the decision boundary."""
    is_correct, confidence = predictions.correct, distance(predictions.probability, threshold, predictions.odds)
    descending = np.argsort(-confidence, kind="stable")
    right, wrong = np.flatnonzero(is_correct), descending[~is_correct[descending]]
    spaced = np.unique(((np.arange(COLUMNS) + 0.5) * len(right) / COLUMNS).astype(np.int64))
    uncertain = np.argsort(confidence, kind="stable")[:COLUMNS]
    return Examples(right[spaced] if len(right) else right, wrong[:COLUMNS], uncertain, len(right), len(wrong))


def draw_predictions(predictions: Predictions, examples: Examples, images: Images, results: Results) -> Figure:
    """Draw correct, wrong and least certain predictions on test images (n, H, W), in the order of `examples`."""
    total = examples.right_count + examples.wrong_count
    near, probability = "with the smallest margin between two classes", "its probability"
    if len(predictions.classes) == 2:
        near = "nearest to the threshold"
        positive, threshold = _shorten(predictions.classes[1]), float(results["threshold"])
        probability = f"probability of {positive} (threshold {format_probability(threshold)})"
    rows = {
        _row_title("Correct", examples.right, examples.right_count, "{} of {:,}, evenly spaced"): examples.right,
        _row_title("Wrong", examples.wrong, examples.wrong_count, "the {} most confident of {:,}"): examples.wrong,
        _row_title("Least certain", examples.uncertain, total, f"the {{}} of {{:,}} {near}"): examples.uncertain,
    }
    subtitle = f"Below each image: predicted class, {probability}, true class. Not a medical device."
    names = [_shorten(name) for name in predictions.classes]
    captions = [
        _Caption(f"true: {names[truth]}", f"{names[predicted]} {_format_probability(shown)}", bool(truth == predicted))
        for truth, predicted, shown in zip(
            predictions.label, predictions.predicted, predictions.confidence, strict=True
        )
    ]
    grid = [(title, [captions[index] for index in indices]) for title, indices in rows.items()]
    return _draw_grid(grid, images, (f"{run_title(results)}, {test_size(results)}", subtitle))


def draw_batch(labels: Sequence[str], images: Images, titles: Sequence[str]) -> Figure:
    """Draw images (n, H, W) of a training batch with their labels, below a title and subtitles."""
    captions = [_Caption(_shorten(label)) for label in labels]
    rows = [("", captions[start : start + COLUMNS]) for start in range(0, len(captions), COLUMNS)]
    return _draw_grid(rows, images, titles)


def _row_title(title: str, indices: Indices, total: int, template: str) -> str:
    count = template.format(len(indices), total) if len(indices) < total else f"all {total}" if total else "none"
    return f"{title}: {count}"


def _draw_grid(rows: Sequence[tuple[str, Sequence[_Caption]]], images: Images, titles: Sequence[str]) -> Figure:
    """Draw rows of images, each with a title; coordinates are inches from the upper left corner."""
    above = 0.3 if rows[0][0] else 0.06
    below = 0.42 if any(caption.prediction for _, captions in rows for caption in captions) else 0.25
    heights = [above + (_SIDE + below if captions else 0) for _, captions in rows]
    top = 0.2 + 0.17 * len(titles)
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDE, top + sum(heights) + 0.06))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.axis("off")
        remaining = iter(images)
        for (title, captions), y in zip(rows, top + np.cumsum([0, *heights[:-1]]), strict=True):
            axes.text(_GAP, y + above - 0.07, title, va="bottom", weight="bold")
            for column, caption in enumerate(captions):
                _draw_image(axes, next(remaining), caption, _GAP + column * (_SIDE + _GAP), y + above)
        axes.set(xlim=(0, WIDE), ylim=(figure.get_figheight(), 0), aspect="auto")
        for line, text in enumerate(titles):
            add_title(figure, text, line)
    return figure


def _draw_image(axes: Axes, pixels: npt.NDArray[np.uint8], caption: _Caption, x: float, y: float) -> None:
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, extent=(x, x + _SIDE, y + _SIDE, y))
    line = y + _SIDE + 0.05
    if caption.prediction:
        colour, mark = (_RIGHT, "✓") if caption.right else (_WRONG, "✗")
        axes.add_patch(Rectangle((x, y), _SIDE, _SIDE, fill=False, color=colour, lw=2.5))
        axes.text(x, line, f"{mark} {caption.prediction}", va="top", fontsize=9, color=colour, weight="bold")
        line += 0.17
    axes.text(x, line, caption.truth, va="top", fontsize=9)


def _format_probability(probability: float) -> str:
    """Format with two digits, but never as 1.00 or 0.00 unless it is exactly 1 or 0."""
    return ">0.99" if 0.995 <= probability < 1 else "<0.01" if 0 < probability < 0.005 else f"{probability:.2f}"


def _shorten(name: str) -> str:
    return (name or "-") if len(name) <= 12 else f"{name[:11]}…"
