"""Batch predictor: predictions of a loaded network for image files, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np

from pneumo.common.hardware import count_cores
from pneumo.errors import ConfigError
from pneumo.inference.backend import Network
from pneumo.inference.inputs import InputImage, read_inputs
from pneumo.inference.prediction import PredictedBatch, Prediction
from pneumo.metrics.predictions import distance, predict_classes


class BatchPredictor:
    """A network that predicts radiographs; its attributes are those of `pneumo.inference.predictor.Predictor`."""

    def __init__(self, network: Network, batch_size: int | None = None, path: Path | None = None) -> None:
        """Wrap a loaded network."""
        self.network, self.rules, self.path = network, network.rules, path
        self.batch_size = batch_size or network.batch_size

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
