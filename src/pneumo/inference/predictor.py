"""The predictor: a loaded network that predicts and explains files."""

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
        network: What scores the images.
        rules: How its output becomes predictions: names of the classes, image size, threshold and more.
        batch_size: Number of images that are scored at once.
    """

    def __init__(self, network: Network, batch_size: int | None = None) -> None:
        """Take an opened network; see `load_model`."""
        self.network, self.rules = network, network.rules
        self.batch_size = batch_size or network.batch_size
        self._explainers: dict[str, Explainer] = {}

    def predict(self, inputs: StrPath | Sequence[StrPath]) -> Iterator[Prediction]:
        """Predict files one after the other; a file that cannot be read gets a prediction with an `error`.

        Args:
            inputs: Files, folders and patterns such as `scans/**/*.dcm`, or one of them. Of a folder all files count.

        Raises:
            ConfigError: An input matches no file.
        """
        given = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
        batches = self.predict_batches(find_inputs([os.fspath(each) for each in given]))
        return (prediction for batch in batches for prediction in batch.predictions)

    def predict_batches(self, paths: Sequence[Path], keep_images: bool = False) -> Iterator[PredictedBatch]:
        """Predict files batch by batch, which threads read ahead; `keep_images` keeps copies to look at."""
        ahead = 2 * self.batch_size
        with closing(read_inputs(paths, self.rules, keep_images, count_cores(), ahead)) as films:
            while batch := list(islice(films, self.batch_size)):
                yield PredictedBatch(self.predict_images(batch), batch)

    def predict_images(self, films: Sequence[InputImage]) -> list[Prediction]:
        """Predict images that were read, in one pass.

        Raises:
            ConfigError: The network's output is NaN.
        """
        found = iter(self._score([film for film in films if film.square is not None]))
        return [Prediction(film.path, error=film.error) if film.square is None else next(found) for film in films]

    def _score(self, films: Sequence[InputImage]) -> list[Prediction]:
        if not films:
            return []
        rules = self.rules
        squares = [film.square for film in films if film.square is not None]
        probability, ood_score = self.network.score(np.stack(squares))
        if not np.isfinite(probability).all():
            raise ConfigError(
                f"The network {rules.name} answers with numbers that are none (NaN): its weights are damaged. Take "
                "another checkpoint."
            )
        most = np.finfo(np.float32).max  # the score of an image that is far from all others may overflow
        ood_score = np.nan_to_num(ood_score, nan=most, posinf=most)
        predicted = predict_classes(probability, rules.threshold)
        far = distance(probability, rules.threshold)
        return [
            Prediction(
                film.path,
                {name: float(f"{share:.9g}") for name, share in zip(rules.classes, shares, strict=True)},
                rules.classes[index],
                uncertain=None if rules.margin is None else bool(near <= rules.margin),
                ood_score=float(score) if rules.outliers else None,
                notes=film.notes,
            )
            for film, shares, index, near, score in zip(films, probability, predicted, far, ood_score, strict=True)
        ]

    def explain(self, path: StrPath, method: str = "hirescam") -> Explanation:
        """Compute which parts of a radiograph speak for a class.

        Args:
            path: The file's.
            method: hirescam, gradcam or occlusion; see docs/EXPLANATIONS.md.

        Raises:
            ConfigError: The network is an exported one, which has no gradients, or the method is unknown or fits no
                layer of it.
            DataError: The file cannot be read.
        """
        if method not in self._explainers:
            from pneumo.inference.explain.overlays import Explainer  # imports Matplotlib

            self._explainers[method] = Explainer(self.network, method)
        film = read_input(Path(path), self.rules, show=True)
        if film.error is not None:
            raise DataError(f"{film.path} {film.error}")
        return self._explainers[method].explain(PredictedBatch(self.predict_images([film]), [film]))[0]


def load_model(path: StrPath, device: str = "auto", batch_size: int | None = None) -> Predictor:
    """Open a checkpoint, or what `pneumo export` made of one, for use.

    Args:
        path: A checkpoint, such as RUN/checkpoints/best.ckpt, or a `.onnx`, which needs no PyTorch.
        device: Where the network computes: cpu, cuda, or auto, which is a GPU if there is one.
        batch_size: Number of images that are scored at once; None: what is fast on the device.

    Raises:
        ConfigError: There is no such file, it is damaged or no network, or no device has that name.
        HardwareError: The device is not there.
    """
    return load_predictor(Path(path), device, batch_size, as_argument)


def load_predictor(path: Path, device: str, batch_size: int | None, style: SettingStyle) -> Predictor:
    """Open a network for use; see `load_model`. Errors name settings in the given style."""
    if batch_size is not None and batch_size < 1:
        raise ConfigError(
            f"{style('batch_size', batch_size)} must be 1 or more films at once, such as {style('batch_size', 16)}."
        )
    return Predictor(open_network(path, device, style), batch_size)


def open_network(path: Path, device: str = "cpu", style: SettingStyle = as_argument) -> Network:
    """Open the network of a file; see `load_model`."""
    if not path.is_file():
        raise ConfigError(
            f"{path} is not a file: give a checkpoint, such as RUN/checkpoints/best.ckpt, or a network that "
            "`pneumo export` made of one."
        )
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"{style('device', device)} is none of auto, cpu and cuda; auto takes a GPU if there is one.")
    if form := FORMATS.get(path.suffix.lower()):
        if form.load_error is not None:
            raise ConfigError(f"{path} {form.load_error}")
        return form.open(path, device, style)
    from pneumo.inference.torch_backend import CheckpointNetwork  # imports torch

    return CheckpointNetwork(path, device, style)


def warn_untested(rules: Rules) -> None:
    """Warn of what a checkpoint cannot predict because its run has not decided it."""
    missing = [
        *(["which answers are uncertain"] if rules.margin is None else []),
        *(["which films do not look like chest radiographs"] if not rules.outliers else []),
    ]
    if missing:
        warn(
            f"This network does not tell {' or '.join(missing)}: its run has not decided that by validation images, as "
            "a whole run does at its end, for its checkpoints/best.ckpt."
        )
