"""Explanations of predictions: saliency maps and their overlays on radiographs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps, rc_context
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from PIL import Image

from pneumo.inference.backend import Network
from pneumo.inference.prediction import Batch, Prediction
from pneumo.reporting.figures.style import STYLE, escape_text

Film = npt.NDArray[np.uint8]
Map = npt.NDArray[np.float32]
# Perceptually uniform, told apart by the colour-blind, and without the greys of films.
_COLOURS = colormaps["plasma"]
_STRONGEST = 0.6  # what a map's maximum covers of the film, so that it stays readable
_FRAME = 0.35  # the same of the line around what the network saw


@dataclass(frozen=True)
class Explanation:
    """What in a radiograph speaks for a class.

    Attributes:
        prediction: For the radiograph.
        target: The class that is explained: the positive one of two, the predicted one of several.
        image: The radiograph's grey values, (H, W); the longer side has at most 1,024 pixels.
        input_saliency: The map of what the network's input holds, (S, S), from 0 to 1.
        crop_pct: What that input keeps of height and width.
    """

    prediction: Prediction
    target: str
    image: Film
    input_saliency: Map
    crop_pct: float

    @property
    def saliency(self) -> Map:
        """The map on the image, (H, W), from 0 to 1; it is 0 outside of what the network's input holds."""
        return place(self.input_saliency, self.image.shape, self.crop_pct)

    @property
    def overlay(self) -> Film:
        """The image under the map, in colours, (H, W, 3)."""
        return overlay(self.image, self.input_saliency, self.crop_pct)


class Explainer:
    """Explains predictions of a network.

    Attributes:
        subject: What maps speak for, in words.
    """

    def __init__(self, network: Network, method: str = "hirescam") -> None:
        """Find the layer whose map is shown.

        Raises:
            ConfigError: As `Network.explainer`.
        """
        self.positive, self.crop_pct = network.rules.positive_class, network.rules.crop_pct
        self.subject = self.positive or "the class that is called"
        self.map = network.explainer(method)

    def explain(self, batch: Batch) -> list[Explanation]:
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


class Example(NamedTuple):
    """What a figure tells of a film.

    Attributes:
        film: Grey values, (height, width).
        places: The map, (size, size).
        title: What stands above the film, such as its file's name.
        called: Name of the class that the network answered.
        target: Name of the class that the map speaks for.
        probability: That of `target`.
    """

    film: Film
    places: Map
    title: str
    called: str
    target: str
    probability: float


def overlay(film: Film, places: Map, crop_pct: float = 1.0) -> Film:
    """Lay a map over its film.

    Args:
        film: Grey values, (height, width), at any size and aspect.
        places: The map, (size, size), from 0 to 1.
        crop_pct: What the network saw of height and width, in the middle; see `pneumo.data.grey.decode`.

    Returns:
        Colours, (height, width, 3). Where the map is 0 they are the film's greys; below 1, a faint line surrounds what
        the network saw.
    """
    strength = place(places, film.shape, crop_pct)[..., None]
    grey = np.repeat(film[..., None].astype(np.float32), 3, axis=2)
    colours = np.float32(255) * _COLOURS(strength[..., 0])[..., :3].astype(np.float32)
    cover = _STRONGEST * strength
    mixed = (1 - cover) * grey + cover * colours
    if crop_pct < 1:
        line = _frame(places.shape[0], film.shape, crop_pct)
        mixed[line] = (1 - _FRAME) * mixed[line] + _FRAME * 255
    return np.asarray(mixed.round().clip(0, 255), np.uint8)


def place(places: Map, shape: tuple[int, ...], crop_pct: float = 1.0) -> Map:
    """Bring a map (size, size) to its place on a film of shape (height, width); it is 0 where nothing was seen."""
    height, width = shape
    whole, start = _seen(places.shape[0], crop_pct)
    matrix = (whole / width, 0, -start, 0, whole / height, -start)
    film = Image.fromarray(places).transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.asarray(film, np.float32)


def draw_examples(examples: Sequence[Example], title: str, crop_pct: float = 1.0) -> Figure:
    """Draw films, each beside itself with its map, two of them in a row."""
    pairs = min(2, len(examples))
    rows = math.ceil(len(examples) / pairs)
    with rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(4.6 * pairs, 2.5 * rows + 1.1), layout="constrained")
        all_axes = figure.subplots(rows, 2 * pairs, squeeze=False)
        for axes in all_axes.flat:
            axes.set_axis_off()
        for example, (left, right) in zip(examples, all_axes.reshape(-1, 2), strict=False):
            left.imshow(example.film, cmap="gray", vmin=0, vmax=255)
            right.imshow(overlay(example.film, example.places, crop_pct))
            text = f"called {example.called}\np({example.target}) = {example.probability:.3f}"
            for axes, words in ((left, example.title), (right, text)):
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


def _seen(size: int, crop_pct: float) -> tuple[int, int]:
    """Return the side of the squeezed film, and where on it the crop begins, in the network's pixels."""
    whole = math.floor(size / crop_pct)
    return whole, (whole - size) // 2


def _frame(size: int, shape: tuple[int, ...], crop_pct: float) -> npt.NDArray[np.bool_]:
    """Mark the border of what was seen, (height, width), as wide as a 300th of the film."""
    whole, start = _seen(size, crop_pct)
    distances = []
    for length in shape:
        position = np.arange(length) + 0.5
        low, high = start / whole * length, (start + size) / whole * length
        distances.append(np.minimum(position - low, high - position))
    distance = np.minimum(distances[0][:, None], distances[1][None, :])
    return np.asarray((distance >= 0) & (distance < max(1, min(shape) / 300)))
