"""A run's figures, with their captions; the grids of test images and of a training batch."""

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
from pneumo.metrics.predictions import Predictions, distance
from pneumo.reporting.figures.charts import draw_calibration, draw_confusion, draw_curves, draw_scores, draw_shift
from pneumo.reporting.figures.style import COLOURS, STYLE, WIDE, head, tested
from pneumo.reporting.generalization import Shift, read_shift
from pneumo.runs.results import Results, name_run

_log = logging.getLogger(__name__)
Places = npt.NDArray[np.int64]
Films = npt.NDArray[np.uint8]
ACROSS = 5  # films in a row
MOST = 3 * ACROSS  # in a figure
_SIDE, _GAP = 1.54, 0.15  # inches
_LARGEST = 16 << 20  # bytes of a figure
_RIGHT, _WRONG = COLOURS[2], COLOURS[1]
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


class Chosen(NamedTuple):
    """Indices of the test images that are shown, ACROSS of each kind at most, and how many there are of each."""

    right: Places  # spread evenly over the correctly predicted images, which are sorted by class and name
    wrong: Places  # the surest of the wrong predictions, the surest first
    uncertain: Places  # the predictions nearest to the threshold, the nearest first
    rights: int  # how many are right
    wrongs: int  # how many are wrong

    @property
    def kinds(self) -> dict[str, Places]:
        """The indices by their kind, in the order in which they are shown."""
        return {"right": self.right, "wrong": self.wrong, "uncertain": self.uncertain}

    @property
    def places(self) -> list[int]:
        """All of them, in the order in which they are shown."""
        return [place for places in self.kinds.values() for place in places.tolist()]


class Film(NamedTuple):
    """What stands below a film: its class and, where it was answered, the answer and whether that is right."""

    truth: str
    answer: str = ""
    right: bool = False


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


def choose(answers: Predictions, threshold: float) -> Chosen:
    """Choose test images to show; the same answers give the same ones.

    How sure an answer is, its distance from another answer tells.
    """
    hit, sureness = answers.right, distance(answers.probability, threshold, answers.odds)
    surest = np.argsort(-sureness, kind="stable")
    right, wrong = np.flatnonzero(hit), surest[~hit[surest]]
    spread = ((np.arange(ACROSS) + 0.5) * len(right) / ACROSS).astype(np.int64)
    uncertain = np.argsort(sureness, kind="stable")[:ACROSS]
    return Chosen(right[np.unique(spread)] if len(right) else right, wrong[:ACROSS], uncertain, len(right), len(wrong))


def draw_predictions(answers: Predictions, chosen: Chosen, films: Films, results: Results) -> Figure:
    """Show test images that were called right and wrong, and the least certain ones; films in the order of `chosen`."""
    total = chosen.rights + chosen.wrongs
    near, number = "whose two likeliest classes are closest", "its probability"
    if len(answers.classes) == 2:
        near = "nearest to the threshold"
        number = f"the probability of {_shorten(answers.classes[1])} (threshold {float(results['threshold']):.3g})"
    rows = {
        _count("Right", chosen.right, chosen.rights, "{} of {:,}, spread evenly over the list"): chosen.right,
        _count("Wrong", chosen.wrong, chosen.wrongs, "the {} surest of {:,}"): chosen.wrong,
        _count("Least certain", chosen.uncertain, total, f"the {{}} of {{:,}} {near}"): chosen.uncertain,
    }
    words = f"Below each film: the answer with {number}, and the truth. Not a medical device."
    names = [_shorten(name) for name in answers.classes]
    captions = [
        Film(f"is {names[truth]}", f"{names[answer]} {_round(share)}", bool(truth == answer))
        for truth, answer, share in zip(answers.label, answers.predicted, answers.confidence, strict=True)
    ]
    shown = [(title, [captions[place] for place in places]) for title, places in rows.items()]
    return _draw(shown, films, (f"{name_run(results)}, {tested(results)}", words))


def draw_batch(labels: Sequence[str], films: Films, titles: Sequence[str]) -> Figure:
    """Show images (n, H, W) of a training batch with their labels, below a heading and further lines."""
    captions = [Film(_shorten(label)) for label in labels]
    rows = [("", captions[start : start + ACROSS]) for start in range(0, len(captions), ACROSS)]
    return _draw(rows, films, titles)


def _count(title: str, places: Places, total: int, words: str) -> str:
    said = words.format(len(places), total) if len(places) < total else f"all {total}" if total else "none"
    return f"{title}: {said}"


def _draw(rows: Sequence[tuple[str, Sequence[Film]]], films: Films, titles: Sequence[str]) -> Figure:
    """Lay out rows of films, each with its title, in inches from the upper left corner."""
    above = 0.3 if rows[0][0] else 0.06
    below = 0.42 if any(film.answer for _, of_row in rows for film in of_row) else 0.25
    heights = [above + (_SIDE + below if of_row else 0) for _, of_row in rows]
    top = 0.2 + 0.17 * len(titles)
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDE, top + sum(heights) + 0.06))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.axis("off")
        left = iter(films)
        for (title, of_row), y in zip(rows, top + np.cumsum([0, *heights[:-1]]), strict=True):
            axes.text(_GAP, y + above - 0.07, title, va="bottom", weight="bold")
            for column, film in enumerate(of_row):
                _show(axes, next(left), film, _GAP + column * (_SIDE + _GAP), y + above)
        axes.set(xlim=(0, WIDE), ylim=(figure.get_figheight(), 0), aspect="auto")
        for line, words in enumerate(titles):
            head(figure, words, line)
    return figure


def _show(axes: Axes, pixels: npt.NDArray[np.uint8], film: Film, x: float, y: float) -> None:
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, extent=(x, x + _SIDE, y + _SIDE, y))
    line = y + _SIDE + 0.05
    if film.answer:
        colour, mark = (_RIGHT, "✓") if film.right else (_WRONG, "✗")
        axes.add_patch(Rectangle((x, y), _SIDE, _SIDE, fill=False, color=colour, lw=2.5))
        axes.text(x, line, f"{mark} {film.answer}", va="top", fontsize=9, color=colour, weight="bold")
        line += 0.17
    axes.text(x, line, film.truth, va="top", fontsize=9)


def _round(share: float) -> str:
    """Give two digits, and no 1.00 or 0.00 to what is neither."""
    return ">0.99" if 0.995 <= share < 1 else "<0.01" if 0 < share < 0.005 else f"{share:.2f}"


def _shorten(name: str) -> str:
    return (name or "-") if len(name) <= 12 else f"{name[:11]}…"
