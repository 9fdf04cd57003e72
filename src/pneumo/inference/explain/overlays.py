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

Pixels = npt.NDArray[np.uint8]
Map = npt.NDArray[np.float32]
# Perceptually uniform, distinguishable by the colour-blind, and without greys.
_COLOURS = colormaps["plasma"]
_STRONGEST = 0.6  # opacity at a map's maximum, so that the image stays visible
_FRAME = 0.35  # opacity of the line around the crop


@dataclass(frozen=True)
class Explanation:
    """The explanation of one prediction: a saliency map, with the radiograph that it belongs to.

    Attributes:
        prediction: The prediction for the radiograph.
        target: The class that is explained: the positive one of two, the predicted one of several.
        image: The radiograph's grey values, (H, W); the longer side has at most 1,024 pixels.
        input_saliency: The map at the size of the network's input, (S, S), from 0 to 1.
        crop_pct: Central fraction of height and width that the input keeps.
    """

    prediction: Prediction
    target: str
    image: Pixels
    input_saliency: Map
    crop_pct: float

    @property
    def saliency(self) -> Map:
        """The map at the size of the image, (H, W), from 0 to 1; it is 0 outside the network's crop."""
        return place_map(self.input_saliency, self.image.shape, self.crop_pct)

    @property
    def overlay(self) -> Pixels:
        """The image with the map over it, in colours, (H, W, 3)."""
        return overlay(self.image, self.input_saliency, self.crop_pct)


class Explainer:
    """Explains a network's predictions for files.

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
    """One radiograph of a figure of overlays.

    Attributes:
        image: Grey values, (height, width).
        saliency: The map, (size, size).
        title: Title above the image, such as its file's name.
        predicted: Name of the predicted class.
        target: Name of the class that the map explains.
        probability: Probability of `target`.
    """

    image: Pixels
    saliency: Map
    title: str
    predicted: str
    target: str
    probability: float


def overlay(image: Pixels, saliency: Map, crop_pct: float = 1.0) -> Pixels:
    """Draw a map over its image.

    Args:
        image: Grey values, (height, width), at any size and aspect.
        saliency: The map, (size, size), from 0 to 1.
        crop_pct: Central fraction of height and width that the network received; see `pneumo.data.radiograph.decode`.

    Returns:
        Colours, (height, width, 3). Where the map is 0 they are the image's greys; below 1, a faint line surrounds what
        the network received.
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


def place_map(saliency: Map, shape: tuple[int, ...], crop_pct: float = 1.0) -> Map:
    """Resize a map (size, size) to an image of shape (height, width); it is 0 outside the network's crop."""
    height, width = shape
    whole, start = _crop_box(saliency.shape[0], crop_pct)
    matrix = (whole / width, 0, -start, 0, whole / height, -start)
    placed = Image.fromarray(saliency).transform(
        (width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )
    return np.asarray(placed, np.float32)


def draw_examples(examples: Sequence[Example], title: str, crop_pct: float = 1.0) -> Figure:
    """Draw images next to their overlays, two pairs in a row."""
    pairs = min(2, len(examples))
    rows = math.ceil(len(examples) / pairs)
    with rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(4.6 * pairs, 2.5 * rows + 1.1), layout="constrained")
        all_axes = figure.subplots(rows, 2 * pairs, squeeze=False)
        for axes in all_axes.flat:
            axes.set_axis_off()
        for example, (left, right) in zip(examples, all_axes.reshape(-1, 2), strict=False):
            left.imshow(example.image, cmap="gray", vmin=0, vmax=255)
            right.imshow(overlay(example.image, example.saliency, crop_pct))
            text = f"called {example.predicted}\np({example.target}) = {example.probability:.3f}"
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


def _crop_box(size: int, crop_pct: float) -> tuple[int, int]:
    """Return the side of the resized image, and the start of the crop on it, in the network's pixels."""
    whole = math.floor(size / crop_pct)
    return whole, (whole - size) // 2


def _frame(size: int, shape: tuple[int, ...], crop_pct: float) -> npt.NDArray[np.bool_]:
    """Mark the border of the crop, (height, width), as wide as a 300th of the image."""
    whole, start = _crop_box(size, crop_pct)
    distances = []
    for length in shape:
        position = np.arange(length) + 0.5
        low, high = start / whole * length, (start + size) / whole * length
        distances.append(np.minimum(position - low, high - position))
    distance = np.minimum(distances[0][:, None], distances[1][None, :])
    return np.asarray((distance >= 0) & (distance < max(1, min(shape) / 300)))
