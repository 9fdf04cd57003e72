"""Predictions for radiographs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pneumo.errors import ConfigError
from pneumo.evaluation.distance import distance
from pneumo.prediction.films import Film
from pneumo.prediction.network import Network

NOTICE = "Not a medical device: for research and teaching, and no diagnosis."
UNCERTAIN = "uncertain"
UNLIKE = "unlike the films of the training: perhaps no frontal chest radiograph"
_LEAST = float(np.finfo(np.float32).smallest_subnormal)


@dataclass(frozen=True)
class Prediction:
    """A network's prediction for one file, or the reason why the file cannot be read.

    Attributes:
        path: The file's; `-` for a file that was given by its content.
        probability: Of each class, by its name; empty for a file that cannot be read.
        predicted_class: The name of the class; None for a file that cannot be read.
        uncertain: Whether the probability lies so near to the threshold that another class could be right; None where
            the network's run did not choose how near.
        ood_score: How far the image is from the training images: with more than 1 it is hardly a frontal chest
            radiograph. None where the network has no OOD detector.
        notes: From reading the file, such as an implausible DICOM header.
        error: Why the file cannot be read, as a predicate; None for a file that was read.
    """

    path: Path
    probability: dict[str, float] = field(default_factory=dict)
    predicted_class: str | None = None
    uncertain: bool | None = None
    ood_score: float | None = None
    notes: tuple[str, ...] = ()
    error: str | None = None

    @property
    def out_of_distribution(self) -> bool | None:
        """Whether `ood_score` is above its limit; None where there is none."""
        return None if self.ood_score is None else self.ood_score > 1

    @property
    def positive_probability(self) -> float:
        """Probability of all classes but the first together: pneumonia."""
        rest, *positive = self.probability.values()
        return positive[0] if len(positive) == 1 else 1 - rest

    @property
    def logit_margin(self) -> float:
        """Log odds of `positive_probability`, which rank images whose probability rounds to 1, up to about 103.

        They follow from all probabilities: single precision is finer near 0 than near 1.
        """
        rest, *positive = self.probability.values()
        return math.log(max(sum(positive), _LEAST)) - math.log(max(rest, _LEAST))

    @property
    def remarks(self) -> list[str]:
        """What limits the prediction, in words."""
        known = ((UNCERTAIN, self.uncertain), (UNLIKE, self.out_of_distribution))
        return [*(words for words, true in known if true), *self.notes]


class Batch(NamedTuple):
    """Predictions for several files, in their order, and the images."""

    predictions: list[Prediction]
    films: list[Film]


def predict_films(network: Network, films: Sequence[Film]) -> list[Prediction]:
    """Predict images in one pass.

    Raises:
        ConfigError: The network's output is NaN.
    """
    squares = [film.square for film in films if film.square is not None]
    found = iter(_score(network, np.stack(squares)) if squares else ())
    return [
        Prediction(film.path, notes=film.notes, error=film.error)
        if film.square is None
        else Prediction(film.path, *next(found), film.notes)
        for film in films
    ]


def _score(
    network: Network, images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
) -> list[tuple[dict[str, float], str, bool | None, float | None]]:
    """Return probabilities, class, uncertainty and OOD score of each image."""
    rules = network.rules
    probability, ood_score = network.score(images)
    if not np.isfinite(probability).all():
        raise ConfigError(
            f"The network {rules.name} answers with numbers that are none (NaN): its weights are damaged. Take another "
            "checkpoint."
        )
    # The score of an image that is far from all others may overflow.
    most = np.finfo(np.float32).max
    ood_score = np.nan_to_num(ood_score, nan=most, posinf=most)
    two = len(rules.classes) == 2
    predicted = (probability[:, 1] > rules.threshold).astype(int) if two else probability.argmax(1)
    far = distance(probability[:, 1] if two else probability, rules.threshold)
    return [
        (
            {name: float(f"{value:.9g}") for name, value in zip(rules.classes, row, strict=True)},  # as predictions.csv
            rules.classes[index],
            None if rules.margin is None else bool(near <= rules.margin),
            float(score) if rules.outliers else None,
        )
        for row, index, near, score in zip(probability, predicted, far, ood_score, strict=True)
    ]


def show_share(share: float) -> str:
    """Format a probability with three digits, and no 1.000 or 0.000 for what is neither."""
    return ">0.999" if 0.9995 <= share < 1 else "<0.001" if 0 < share < 0.0005 else f"{share:.3f}"
