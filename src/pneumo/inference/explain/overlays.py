"""Saliency maps over radiographs: in memory, as a figure and as image files."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps, rc_context
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from PIL import Image

from pneumo.common.files import atomic_path, bounded_name, unwritable
from pneumo.common.terminal import warn
from pneumo.data.image_notes import some
from pneumo.inference.backend import Floats, Images, Network
from pneumo.inference.prediction import NOTICE, PredictedBatch, Prediction, show_path
from pneumo.reporting.figures.style import STYLE, escape_text

# Perceptually uniform, distinguishable by the colour-blind, and without greys.
_COLOURS = colormaps["plasma"]
_STRONGEST = 0.6  # what a map's maximum covers of the film, so that it stays readable
_FRAME = 0.35  # the same of the line around what the network saw
_OVERVIEW = "overview.png"
_MOST = 24  # images in the overview
_SMALL = 360  # pixels of an image's longer side there
# Errors of a file's name, where the folder can have others.
_OF_THE_NAME = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EEXIST, errno.EISDIR, errno.ENOTDIR}


@dataclass(frozen=True)
class Explanation:
    """What in a radiograph speaks for a class."""

    prediction: Prediction  # for the radiograph
    target: str  # the class that is explained: the positive one of two, the predicted one of several
    image: Images  # the radiograph's grey values, (H, W); the longer side has at most 1,024 pixels
    input_saliency: Floats  # the map of what the network's input holds, (S, S), from 0 to 1
    crop_pct: float  # what that input keeps of height and width

    @property
    def saliency(self) -> Floats:
        """The map on the image, (H, W), from 0 to 1; it is 0 outside of what the network's input holds."""
        return place_map(self.input_saliency, self.image.shape, self.crop_pct)

    @property
    def overlay(self) -> Images:
        """The image under the map, in colours, (H, W, 3)."""
        return overlay(self.image, self.input_saliency, self.crop_pct)


class Explainer:
    """Explains predictions of a network; `subject` is what its maps speak for, in words."""

    def __init__(self, network: Network, method: str = "hirescam") -> None:
        """Find the layer whose map is shown; errors are those of `Network.explainer`."""
        self.positive, self.crop_pct = network.rules.positive_class, network.rules.crop_pct
        self.subject = self.positive or "the class that is called"
        self.map = network.explainer(method)

    def explain(self, batch: PredictedBatch) -> list[Explanation]:
        """Explain the files of a batch that were read with copies to look at."""
        read = [
            (prediction, prediction.predicted_class, film.square, np.asarray(film.shown))
            for prediction, film in zip(*batch, strict=True)
            if film.shown is not None
        ]
        if not read:
            return []
        maps = self.map(np.stack([square for *_, square, _ in read if square is not None]))
        return [
            Explanation(prediction, self.positive or str(predicted), image, found, self.crop_pct)
            for (prediction, predicted, _, image), found in zip(read, maps, strict=True)
        ]


def overlay(image: Images, saliency: Floats, crop_pct: float = 1.0) -> Images:
    """Lay a map, (size, size), from 0 to 1, over its film, (height, width); return colours, (height, width, 3).

    Where the map is 0 they are the film's greys. With `crop_pct` below 1, a faint line surrounds what the network saw.
    """
    strength = place_map(saliency, image.shape, crop_pct)[..., None]
    grey = np.repeat(image[..., None].astype(np.float32), 3, axis=2)
    colours = np.float32(255) * _COLOURS(strength[..., 0])[..., :3].astype(np.float32)
    cover = _STRONGEST * strength
    mixed = (1 - cover) * grey + cover * colours
    if crop_pct < 1:
        line = _frame(saliency.shape[0], image.shape, crop_pct)
        mixed[line] = (1 - _FRAME) * mixed[line] + _FRAME * 255
    return np.asarray(mixed.round().clip(0, 255), np.uint8)


def place_map(saliency: Floats, shape: tuple[int, ...], crop_pct: float = 1.0) -> Floats:
    """Resize a map (size, size) to an image of shape (height, width); it is 0 outside the network's crop."""
    height, width = shape
    whole, start = _crop_box(saliency.shape[0], crop_pct)
    matrix = (whole / width, 0, -start, 0, whole / height, -start)
    placed = Image.fromarray(saliency).transform(
        (width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )
    return np.asarray(placed, np.float32)


def _crop_box(size: int, crop_pct: float) -> tuple[int, int]:
    """Return the side of the squeezed film, and where on it the crop begins, in the network's pixels."""
    whole = math.floor(size / crop_pct)
    return whole, (whole - size) // 2


def _frame(size: int, shape: tuple[int, ...], crop_pct: float) -> npt.NDArray[np.bool_]:
    """Mark the border of what was seen, (height, width), as wide as a 300th of the film."""
    whole, start = _crop_box(size, crop_pct)
    distances = []
    for length in shape:
        position = np.arange(length) + 0.5
        low, high = start / whole * length, (start + size) / whole * length
        distances.append(np.minimum(position - low, high - position))
    distance = np.minimum(distances[0][:, None], distances[1][None, :])
    return np.asarray((distance >= 0) & (distance < max(1, min(shape) / 300)))


def draw_examples(examples: Sequence[tuple[str, Explanation]], title: str) -> Figure:
    """Draw films under their names, each beside itself with its map, two of them in a row."""
    pairs = min(2, len(examples))
    rows = math.ceil(len(examples) / pairs)
    with rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(4.6 * pairs, 2.5 * rows + 1.1), layout="constrained")
        all_axes = figure.subplots(rows, 2 * pairs, squeeze=False)
        for axes in all_axes.flat:
            axes.set_axis_off()
        for (name, example), (left, right) in zip(examples, all_axes.reshape(-1, 2), strict=False):
            left.imshow(example.image, cmap="gray", vmin=0, vmax=255)
            right.imshow(example.overlay)
            prediction, target = example.prediction, example.target
            text = f"called {prediction.predicted_class}\np({target}) = {prediction.probability[target]:.3f}"
            for axes, words in ((left, name), (right, text)):
                axes.set_title(words, loc="left", fontsize=9, fontweight="normal")
        bar = figure.colorbar(
            _legend(), ax=all_axes, orientation="horizontal", fraction=0.25 / rows, aspect=40, shrink=0.5, pad=0.02
        )
        bar.set_ticks([0, 1], labels=["nothing", "the most"])
        bar.set_label("speaks for the class whose probability p is given; each film has a scale of its own", fontsize=9)
        bar.outline.set_visible(False)
        figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    escape_text(figure)
    return figure


def _legend() -> ScalarMappable:
    strength = np.linspace(0, 1, 256)[:, None]
    cover = _STRONGEST * strength
    return ScalarMappable(cmap=ListedColormap((1 - cover) * 0.5 + cover * _COLOURS(strength[:, 0])[:, :3]))


class OverlayFolder:
    """A folder of overlays, a picture an image, and an overview of the first ones."""

    def __init__(self, folder: Path, network: Network, paths: Sequence[Path]) -> None:
        """Name the pictures of all files; errors are those of `Network.explainer`."""
        self.folder, self.explainer, self.names = folder, Explainer(network), name_pictures(paths)
        self.examples: list[tuple[str, Explanation]] = []
        self.failed: list[str] = []

    def add(self, batch: PredictedBatch) -> None:
        """Write the overlays of a batch; raise a ConfigError if a file cannot be written."""
        for explanation in self.explainer.explain(batch):
            prediction, name = explanation.prediction, self.names[explanation.prediction.path]
            if not self._write(name, Image.fromarray(explanation.overlay).save):
                self.failed.append(show_path(prediction.path))
            if len(self.examples) < _MOST:
                small = Image.fromarray(explanation.image)
                small.thumbnail((_SMALL, _SMALL))
                title = show_path(Path(name.removesuffix(".png")))
                title = title if len(title) <= 28 else f"…{title[-27:]}"
                self.examples.append((title, replace(explanation, image=np.asarray(small))))

    def finish(self) -> bool:
        """Write the overview, name the files whose pictures could not be written, and return whether there were none.

        Raises:
            ConfigError: The overview cannot be written.
        """
        count, total = len(self.examples), len(self.names)
        if self.failed:
            warn(
                f"{len(self.failed):,} of {total:,} maps are not in {self.folder}, which cannot have files of their "
                f"names: {some(self.failed)}. Give these films other names, or --explain another place."
            )
        if count:
            which = "" if count == total else f" in the first {count} of {total:,} films"
            title = f"What speaks for {self.explainer.subject}{which}\n{NOTICE}"
            figure = draw_examples(self.examples, title)
            self._write(_OVERVIEW, lambda path: figure.savefig(path, dpi=110))
        return not self.failed

    def _write(self, name: str, write: Callable[[Path], None]) -> bool:
        """Write a picture; return whether the folder can have a file of this name."""
        try:
            with atomic_path(self.folder / name) as temporary:
                write(temporary)
        except OSError as error:
            if error.errno in _OF_THE_NAME:
                return False
            raise unwritable("--explain", self.folder / name, error) from error
        return True


def name_pictures(paths: Sequence[Path]) -> dict[Path, str]:
    """Name each file's picture: its path below the folder that all share, its suffix kept, and .png.

    A name that is too long for that is cut, and ends in a hash.
    """
    absolute = [os.path.abspath(path) for path in paths]
    shared = os.path.commonpath([os.path.dirname(path) for path in absolute])
    taken, names = {_OVERVIEW}, {}
    for path, whole in zip(paths, absolute, strict=True):
        folder, stem = os.path.split(os.path.relpath(whole, shared))
        name = os.path.join(folder, bounded_name(stem, ".png"))
        number = 1
        while name in taken:  # of paths through links two can become the same
            number += 1
            name = os.path.join(folder, bounded_name(stem, f"-{number}.png"))
        taken.add(name)
        names[path] = name
    return names
