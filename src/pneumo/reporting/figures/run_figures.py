"""A run's figures, with their captions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib import rc_context
from matplotlib.figure import Figure

from pneumo.common.plain_data import PlainDataError, read_bytes
from pneumo.metrics.predictions import Predictions
from pneumo.reporting.figures.curves import draw_curves
from pneumo.reporting.figures.examples import Films, choose, draw_predictions
from pneumo.reporting.figures.scores import draw_calibration, draw_confusion, draw_scores, draw_shift
from pneumo.reporting.figures.style import STYLE
from pneumo.reporting.generalization import Shift, read_shift
from pneumo.runs.results import Results

_log = logging.getLogger(__name__)
_LARGEST = 16 << 20  # bytes of a figure
# In the order in which a page shows them.
CAPTIONS = {
    "roc": "ROC curve of the test with its 95 % band (point by point, stratified bootstrap) and the threshold's place.",
    "precision_recall": "Precision against recall, likewise. The dotted line is what calling at random would reach.",
    "confusion_matrix": "Test images by what they are (rows) and what they were called (columns), as shares of a row.",
    "scores": "The probabilities that each class's test images got, and the threshold above which they are called ill.",
    "calibration": "Share of positives among test images of like probability, with Wilson's 95 % intervals.",
    "shift": "From held-out validation images to the test: scores of each class, and what they come to.",
    "predictions": "Test images as the network saw them: some that it got right, its surest mistakes, its close calls.",
    "learning_curves": "Loss, AUROC and accuracy of each epoch. Those of training are means over the epoch, as "
    "training saw it: augmented, with dropout, and the loss with class weights and smoothed labels if so set.",
    "training_batch": "Images of the first training batch as the network saw them, augmented if so set.",
}


class RunFigure(NamedTuple):
    """A figure in a run's folder: the name of its files, what it shows, and its files."""

    name: str
    caption: str
    png: Path
    svg: Path


def run_figures(folder: Path) -> list[RunFigure]:
    """Return the figures that there are in a run's folder, in the order in which a page shows them."""
    paths = {name: folder / "figures" / name for name in CAPTIONS}
    found = [RunFigure(name, CAPTIONS[name], Path(f"{path}.png"), Path(f"{path}.svg")) for name, path in paths.items()]
    return [figure for figure in found if figure.png.is_file() and figure.svg.is_file()]


def embed_figures(folder: Path) -> list[tuple[str, str, bytes]]:
    """Return name, caption and SVG of a run's figures; files that are no SVG of its own are left out and named."""
    found = []
    for figure in run_figures(folder):
        try:
            if figure.svg.resolve().parent != folder.resolve() / "figures":
                raise PlainDataError("it is a link to another place")  # which may be any file of this machine
            content = read_bytes(figure.svg, _LARGEST)
            if b"<svg" not in content[:2_000]:
                raise PlainDataError("it is no SVG")
        except (FileNotFoundError, PlainDataError) as error:
            _log.warning("%s is not on the page: %s.", figure.svg, error)
            continue
        found.append((figure.name, figure.caption, content))
    return found


def draw_test(
    folder: Path, answers: Predictions, results: Results, load: Callable[[Sequence[str]], Films]
) -> dict[str, Figure]:
    """Draw a run's test, by the figures' names.

    ROC and precision-recall curve, confusion matrix, histogram of scores and a choice of films; of two classes also
    the calibration curve and, where there is a validation.csv, what changed since validation. `load` returns images
    (n, H, W) by their paths.
    """
    chosen = choose(answers, float(results["threshold"]))
    films = load([answers.paths[i] for i in chosen.places])
    with rc_context(STYLE):
        figures = {
            **draw_curves(answers, results),
            "confusion_matrix": draw_confusion(answers, results),
            "scores": draw_scores(answers, results),
            "predictions": draw_predictions(answers, chosen, films, results),
        }
        if answers.is_binary:
            figures["calibration"] = draw_calibration(answers, results)
            if isinstance(shift := read_shift(folder, results), Shift):
                figures["shift"] = draw_shift(shift, results)
    return figures
