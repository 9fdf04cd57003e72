"""The predictor: prediction and explanation of image files by a loaded network."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pneumo.common.hardware import count_cores
from pneumo.common.terminal import warn
from pneumo.errors import ConfigError, DataError
from pneumo.inference.backend import Network, Rules, SettingStyle, as_argument
from pneumo.inference.export.formats import FORMATS
from pneumo.inference.inputs import InputImage, find_inputs, read_input, read_inputs
from pneumo.inference.prediction import PredictedBatch, Prediction
from pneumo.metrics.predictions import distance, predict_classes

if TYPE_CHECKING:
    from pneumo.inference.explain.overlays import Explainer, Explanation

StrPath = str | os.PathLike[str]


class Predictor:
    """A checkpoint or an exported network that predicts and explains radiographs.

    Attributes:
        network: The network's backend.
        rules: The network's class names, image size, threshold and other settings.
        batch_size: Number of images in a batch.
        path: The network's file; None if it was built in memory.
    """

    def __init__(self, network: Network, batch_size: int | None = None, path: Path | None = None) -> None:
        """Wrap a loaded network; `load_model` creates a predictor from a file."""
        self.network, self.rules, self.path = network, network.rules, path
        self.batch_size = batch_size or network.batch_size
        self._explainers: dict[str, Explainer] = {}

    def predict(self, inputs: StrPath | Sequence[StrPath]) -> Iterator[Prediction]:
        """Predict files one by one; the prediction for an unreadable file has an `error`.

        Args:
            inputs: A file, a folder, a pattern such as `scans/**/*.dcm`, or a sequence of these. Folders are searched
                recursively for files of any suffix.

        Raises:
            ConfigError: An input matches no file.
        """
        items = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
        batches = self.predict_batches(find_inputs([os.fspath(item) for item in items]))
        return (prediction for batch in batches for prediction in batch.predictions)

    def predict_batches(
        self, paths: Sequence[Path], keep_previews: bool = False, keep_thumbnails: bool = False
    ) -> Iterator[PredictedBatch]:
        """Predict files batch by batch while threads prefetch; both options keep downscaled copies of the images."""
        prefetch = 2 * self.batch_size
        inputs = read_inputs(paths, self.rules, keep_previews, count_cores(), prefetch, keep_thumbnails)
        with closing(inputs) as images:
            while batch := list(islice(images, self.batch_size)):
                yield PredictedBatch(self.predict_images(batch), batch)

    def predict_images(self, images: Sequence[InputImage]) -> list[Prediction]:
        """Predict input images in one forward pass.

        Raises:
            ConfigError: The network's output is NaN.
        """
        predictions = iter(self._score([image for image in images if image.pixels is not None]))
        return [
            Prediction(image.path, error=image.error) if image.pixels is None else next(predictions) for image in images
        ]

    def _score(self, images: Sequence[InputImage]) -> list[Prediction]:
        if not images:
            return []
        rules = self.rules
        batch = np.stack([image.pixels for image in images if image.pixels is not None])
        probability, ood_score = self.network.score(batch)
        if not np.isfinite(probability).all():
            raise ConfigError(
                f"The output of the network {rules.name} is NaN: its weights are damaged. Use another checkpoint."
            )
        largest = np.finfo(np.float32).max  # scores of images far from the training data can overflow
        ood_score = np.nan_to_num(ood_score, nan=largest, posinf=largest)
        predicted = predict_classes(probability, rules.threshold)
        margins = distance(probability, rules.threshold)
        return [
            Prediction(
                image.path,
                {name: float(f"{value:.9g}") for name, value in zip(rules.classes, row, strict=True)},
                rules.classes[index],
                uncertain=None if rules.margin is None else bool(margin <= rules.margin),
                ood_score=float(score) if rules.has_ood_detector else None,
                notes=image.notes,
            )
            for image, row, index, margin, score in zip(images, probability, predicted, margins, ood_score, strict=True)
        ]

    def explain(self, path: StrPath, method: str = "hirescam") -> Explanation:
        """Compute a saliency map of a radiograph.

        Args:
            path: Path of the image file.
            method: hirescam, gradcam or occlusion; see docs/EXPLANATIONS.md.

        Raises:
            ConfigError: The network is an exported one without gradients, or the method is unknown or fits none of its
                layers.
            DataError: The file cannot be read.
        """
        if method not in self._explainers:
            from pneumo.inference.explain.overlays import Explainer  # imports Matplotlib

            self._explainers[method] = Explainer(self.network, method)
        image = read_input(Path(path), self.rules, keep_preview=True)
        if image.error is not None:
            raise DataError(f"{image.path} {image.error}")
        return self._explainers[method].explain(PredictedBatch(self.predict_images([image]), [image]))[0]


def load_model(path: StrPath, device: str = "auto", batch_size: int | None = None) -> Predictor:
    """Load a checkpoint or an exported network as a predictor.

    Args:
        path: A checkpoint, such as RUN/checkpoints/best.ckpt, or an exported `.onnx` file, which needs no PyTorch.
        device: cpu, cuda or auto (a GPU if available).
        batch_size: Number of images in a batch; None: the fastest on the device.

    Raises:
        ConfigError: The file does not exist, is damaged or is not a network, or a setting is invalid.
        HardwareError: The device is not available.
    """
    return load_predictor(Path(path), device, batch_size, as_argument)


def load_predictor(path: Path, device: str, batch_size: int | None, style: SettingStyle) -> Predictor:
    """Load a predictor; see `load_model`. Errors format settings in the given style."""
    if batch_size is not None and batch_size < 1:
        raise ConfigError(
            f"{style('batch_size', batch_size)} is out of range: it must be 1 or more. Use a value such as "
            f"{style('batch_size', 16)}."
        )
    return Predictor(open_network(path, device, style), batch_size, path)


def open_network(path: Path, device: str = "cpu", style: SettingStyle = as_argument) -> Network:
    """Load the network of a file; see `load_model`."""
    if not path.is_file():
        raise ConfigError(
            f"{path} is not a file. Use a checkpoint, such as RUN/checkpoints/best.ckpt, or an ONNX file from "
            "`pneumo export`."
        )
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"{style('device', device)} is not a device: it must be auto, cpu or cuda.")
    if form := FORMATS.get(path.suffix.lower()):
        if form.load_error is not None:
            raise ConfigError(f"{path} {form.load_error}")
        return form.open(path, device, style)
    from pneumo.inference.torch_backend import CheckpointNetwork  # imports torch

    return CheckpointNetwork(path, device, style)


def warn_uncalibrated(rules: Rules) -> None:
    """Warn about the remarks that an uncalibrated checkpoint cannot provide."""
    missing = [
        *(["uncertain predictions"] if rules.margin is None else []),
        *(["out-of-distribution images"] if not rules.has_ood_detector else []),
    ]
    if missing:
        warn(
            f"This network does not detect {' or '.join(missing)}: its run did not calibrate it on validation images. "
            "Use checkpoints/best.ckpt of a complete run."
        )
