"""Whether an exported network answers what its checkpoint answers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from pneumo.models.classifier import Classifier
from pneumo.models.levels import LevelMeans
from pneumo.prediction.network import Images, Network, Scores

_BLOCK = 32  # films at once


class Difference(NamedTuple):
    """The largest differences between what two networks answer to films.

    Attributes:
        probability: Of any class.
        unlike: Of how unlike the training images a film is, as share of it where it is more than 1.
    """

    probability: float
    unlike: float


def compare(expected: Scores, found: Scores) -> Difference:
    """Compare answers to the same films."""
    (probability, unlike), (other, as_unlike) = expected, found
    far = np.abs(as_unlike - unlike) / np.maximum(unlike, 1)
    return Difference(float(np.abs(other - probability).max()), float(far.max()))


def score(network: Network, films: Images) -> Scores:
    """Score films (N, 1, S, S): the first alone, the others in batches."""
    blocks = [films[:1], *(films[start : start + _BLOCK] for start in range(1, len(films), _BLOCK))]
    probability, unlike = zip(*map(network.score, blocks), strict=True)
    return np.concatenate(probability), np.concatenate(unlike)


def score_plainly(classifier: Classifier, films: Images) -> Scores:
    """Score films as the test does, without anything that was done to make the network fast or portable."""
    levels = LevelMeans(classifier.backbone, classifier.image_size)
    probability, unlike = [], []
    with torch.inference_mode():
        for block in torch.split(torch.from_numpy(films), _BLOCK):
            share = classifier.probability(classifier.answer(block))
            probability.append(torch.stack((1 - share, share), 1) if share.ndim == 1 else share)
            means = levels(block)[1]
            unlike.append(classifier.outliers.score(means) if classifier.outliers else means.new_zeros(len(means)))
    return torch.cat(probability).numpy(), torch.cat(unlike).numpy()
