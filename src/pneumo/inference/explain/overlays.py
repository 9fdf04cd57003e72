"""Overlays of saliency maps on radiographs: as arrays, image files and an overview figure."""

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
from pneumo.common.input_format import InputFormat
from pneumo.common.terminal import warn
from pneumo.data.image_notes import abbreviate
from pneumo.inference.backend import Floats, Images, Network
from pneumo.inference.prediction import NOTICE, PredictedBatch, Prediction, show_path
from pneumo.reporting.figures.style import STYLE, escape_text

# Perceptually uniform, distinguishable by colour-blind readers, and without greys.
_COLOURS = colormaps["plasma"]
_MAX_OPACITY = 0.6  # of the saliency map's maximum, so that the radiograph stays visible
_FRAME_OPACITY = 0.35
_OVERVIEW = "overview.png"
_MAX_EXAMPLES = 24  # images in the overview
_EXAMPLE_SIZE = 360  # pixels of an image's longer side in the overview
# Errors that concern one file name; other files can still be written to the folder.
_NAME_ERRORS = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EEXIST, errno.EISDIR, errno.ENOTDIR}


@dataclass(frozen=True)
class Explanation:
    """Saliency map of a radiograph, with the prediction that it explains."""

    prediction: Prediction
    target: str  # the explained class: the positive one of two, otherwise the predicted one
    image: Images  # the radiograph's grey values, (H, W); the longer side has at most 1,024 pixels
    input_saliency: Floats  # the saliency map of the network's input, (S, S), from 0 to 1
    form: InputFormat  # of the network's input

    @property
    def saliency(self) -> Floats:
        """The saliency map at the image's size, (H, W), from 0 to 1; 0 outside the network's input."""
        return resize_map(self.input_saliency, self.image.shape, self.form)

    @property
    def overlay(self) -> Images:
        """The image with the saliency map as a colour overlay, (H, W, 3)."""
        return overlay(self.image, self.input_saliency, self.form)


class Explainer:
    """Computes saliency maps of images that a network has classified.

    Attributes:
        subject: Class that the saliency maps explain, as a noun phrase.
    """

    def __init__(self, network: Network, method: str = "hirescam") -> None:
        """Build the saliency mapper; raises the errors of `Network.explainer`."""
        self.positive, self.form = network.rules.positive_class, network.rules.input_format
        self.subject = self.positive or "the predicted class"
        self.compute_maps = network.explainer(method)

    def explain(self, batch: PredictedBatch) -> list[Explanation]:
        """Explain the predictions of a batch; images without a preview are skipped."""
        readable = [
            (prediction, prediction.predicted_class, image.pixels, np.asarray(image.preview))
            for prediction, image in zip(*batch, strict=True)
            if image.preview is not None
        ]
        if not readable:
            return []
        maps = self.compute_maps(np.stack([pixels for *_, pixels, _ in readable if pixels is not None]))
        return [
            Explanation(prediction, self.positive or str(predicted), image, saliency, self.form)
            for (prediction, predicted, _, image), saliency in zip(readable, maps, strict=True)
        ]


def overlay(image: Images, saliency: Floats, form: InputFormat) -> Images:
    """Blend a saliency map (size, size), from 0 to 1, into an image (height, width); return RGB (height, width, 3).

    Pixels where the map is 0 stay grey. If the network's input is a part of the image, a faint frame marks it.
    """
    strength = resize_map(saliency, image.shape, form)[..., None]
    grey = np.repeat(image[..., None].astype(np.float32), 3, axis=2)
    colours = np.float32(255) * _COLOURS(strength[..., 0])[..., :3].astype(np.float32)
    opacity = _MAX_OPACITY * strength
    blended = (1 - opacity) * grey + opacity * colours
    frame = _frame(image.shape, form)
    if frame is not None:
        blended[frame] = (1 - _FRAME_OPACITY) * blended[frame] + _FRAME_OPACITY * 255
    return np.asarray(blended.round().clip(0, 255), np.uint8)


def resize_map(saliency: Floats, shape: tuple[int, ...], form: InputFormat) -> Floats:
    """Resize a saliency map (size, size) to an image of shape (height, width); 0 outside the network's input."""
    height, width = shape
    left, top, right, bottom = form.input_box(width, height)
    across, down = form.size / (right - left), form.size / (bottom - top)
    matrix = (across, 0, -left * across, 0, down, -top * down)
    resized = Image.fromarray(saliency).transform(
        (width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )
    return np.asarray(resized, np.float32)


def _frame(shape: tuple[int, ...], form: InputFormat) -> npt.NDArray[np.bool_] | None:
    """Return the mask of a frame around the network's input, (height, width); None if the input is the whole image.

    Its width is a 300th of the image's shorter side.
    """
    height, width = shape
    left, top, right, bottom = form.input_box(width, height)
    edges = ((top, bottom, height), (left, right, width))
    if all(low <= 0 and high >= length for low, high, length in edges):
        return None
    distances = []
    for low, high, length in edges:
        centres = np.arange(length) + 0.5
        distances.append(np.minimum(centres - max(low, 0), min(high, length) - centres))
    distance = np.minimum(distances[0][:, None], distances[1][None, :])
    return np.asarray((distance >= 0) & (distance < max(1, min(shape) / 300)))


def draw_examples(examples: Sequence[tuple[str, Explanation]], title: str) -> Figure:
    """Plot each image next to its overlay, two images per row, with names and predictions as titles."""
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
            caption = f"predicted {prediction.predicted_class}\np({target}) = {prediction.probability[target]:.3f}"
            for axes, text in ((left, name), (right, caption)):
                axes.set_title(text, loc="left", fontsize=9, fontweight="normal")
        bar = figure.colorbar(
            _colour_map(), ax=all_axes, orientation="horizontal", fraction=0.25 / rows, aspect=40, shrink=0.5, pad=0.02
        )
        bar.set_ticks([0, 1], labels=["none", "maximum"])
        bar.set_label("evidence for the class in p(class), scaled to the maximum of each image", fontsize=9)
        bar.outline.set_visible(False)
        figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    escape_text(figure)
    return figure


def _colour_map() -> ScalarMappable:
    strength = np.linspace(0, 1, 256)[:, None]
    opacity = _MAX_OPACITY * strength
    return ScalarMappable(cmap=ListedColormap((1 - opacity) * 0.5 + opacity * _COLOURS(strength[:, 0])[:, :3]))


class OverlayFolder:
    """A folder with an overlay of each image, and an overview of the first ones."""

    def __init__(self, folder: Path, network: Network, paths: Sequence[Path]) -> None:
        """Choose the overlays' file names; raises the errors of `Network.explainer`."""
        self.folder, self.explainer, self.names = folder, Explainer(network), name_overlays(paths)
        self.examples: list[tuple[str, Explanation]] = []
        self.failed: list[str] = []

    def add(self, batch: PredictedBatch) -> None:
        """Write the overlays of a batch; raise a ConfigError if the folder cannot be written."""
        for explanation in self.explainer.explain(batch):
            prediction, name = explanation.prediction, self.names[explanation.prediction.path]
            if not self._write(name, Image.fromarray(explanation.overlay).save):
                self.failed.append(show_path(prediction.path))
            if len(self.examples) < _MAX_EXAMPLES:
                small = Image.fromarray(explanation.image)
                small.thumbnail((_EXAMPLE_SIZE, _EXAMPLE_SIZE))
                title = show_path(Path(name.removesuffix(".png")))
                title = title if len(title) <= 28 else f"…{title[-27:]}"
                self.examples.append((title, replace(explanation, image=np.asarray(small))))

    def finish(self) -> bool:
        """Write the overview, warn about overlays that could not be written, and return whether all were written.

        Raises:
            ConfigError: The overview cannot be written.
        """
        count, total = len(self.examples), len(self.names)
        if self.failed:
            warn(
                f"{len(self.failed):,} of {total:,} saliency maps could not be written, because {self.folder} cannot "
                f"hold files of these names: {abbreviate(self.failed)}. Rename these images, or set --explain to "
                "another folder."
            )
        if count:
            subset = "" if count == total else f" (first {count} of {total:,} images)"
            title = f"Saliency maps: evidence for {self.explainer.subject}{subset}\n{NOTICE}"
            figure = draw_examples(self.examples, title)
            self._write(_OVERVIEW, lambda path: figure.savefig(path, dpi=110))
        return not self.failed

    def _write(self, name: str, write: Callable[[Path], None]) -> bool:
        """Write a file; return whether the folder can hold a file of this name."""
        try:
            with atomic_path(self.folder / name) as temporary:
                write(temporary)
        except OSError as error:
            if error.errno in _NAME_ERRORS:
                return False
            raise unwritable("--explain", self.folder / name, error) from error
        return True


def name_overlays(paths: Sequence[Path]) -> dict[Path, str]:
    """Choose the file name of each image's overlay: its path relative to the common folder, with .png appended.

    Names that are too long are cut, and end in a hash.
    """
    absolute = [os.path.abspath(path) for path in paths]
    shared = os.path.commonpath([os.path.dirname(path) for path in absolute])
    used, names = {_OVERVIEW}, {}
    for path, absolute_path in zip(paths, absolute, strict=True):
        folder, stem = os.path.split(os.path.relpath(absolute_path, shared))
        name = os.path.join(folder, bounded_name(stem, ".png"))
        number = 1
        while name in used:  # such as `a/../x` and `x`, which are different files if `a` is a link
            number += 1
            name = os.path.join(folder, bounded_name(stem, f"-{number}.png"))
        used.add(name)
        names[path] = name
    return names
