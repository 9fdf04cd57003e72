"""Whether probabilities mean what they say."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pneumo.evaluation.answers import Answers
from pneumo.evaluation.intervals import wilson

BINS = 15  # of equal width, as in Guo et al., On Calibration of Modern Neural Networks, 2017
_EDGES = np.linspace(0, 1, BINS + 1, dtype=np.float32)


class Bin(NamedTuple):
    """Images whose probabilities lie close to each other.

    Attributes:
        images: How many they are.
        probability: Their mean.
        share: How many of them are positive.
        low: Of the share's 95 % interval (Wilson).
        high: Likewise.
    """

    images: int
    probability: float
    share: float
    low: float
    high: float


def bin_of(probability: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Number the bins from 0, as torchmetrics does: a lower edge belongs to its bin, and 1 has bin 15 for itself."""
    return np.digitize(probability.astype(np.float32), _EDGES) - 1


def gaps(probability: npt.NDArray[np.float64], right: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Give what each image adds to the gap of its bin between mean probability and share, (N, bins)."""
    inside = np.zeros((len(probability), BINS + 1))
    inside[np.arange(len(probability)), bin_of(probability)] = probability - right
    return inside


def calibration_curve(answers: Answers) -> list[Bin]:
    """Compare mean probability and share of positives in each bin that has images."""
    place = np.minimum(bin_of(answers.probability), BINS - 1)
    found = []
    for number in np.unique(place):
        here = place == number
        count, positives = int(here.sum()), int(answers.positive[here].sum())
        mean = float(answers.probability[here].mean())
        found.append(Bin(count, mean, positives / count, *wilson(positives, count)))
    return found
