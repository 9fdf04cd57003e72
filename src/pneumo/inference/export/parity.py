"""Parity and latency of an exported network, compared with its checkpoint."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch

from pneumo.common.terminal import PlainTable
from pneumo.errors import ConfigError
from pneumo.inference.backend import Images, Network, Rules, Scores, as_flag
from pneumo.inference.export.formats import FORMATS
from pneumo.inference.export.writer import describe_network, write_network
from pneumo.inference.torch_backend import CheckpointNetwork
from pneumo.metrics.definitions import measure
from pneumo.metrics.predictions import Predictions, predict_classes
from pneumo.models.classifier import Classifier
from pneumo.models.ood_detector import LevelMeans

_BLOCK = 32  # films at once
ROUNDS = (3, 30)  # at least, at most
_SECONDS = 10.0  # of a measurement, after which no further round begins


class Difference(NamedTuple):
    """The largest differences between what two networks answer to films."""

    probability: float  # of any class
    unlike: float  # of how unlike the training images a film is, as share of it where it is more than 1


ALLOWED = Difference(1e-4, 1e-3)  # what rounding explains


def write_checked(
    network: CheckpointNetwork, checkpoint: Path, films: Images, path: Path
) -> tuple[Network, Difference]:
    """Write a network, and return what was written, opened again, and how far it is from the checkpoint on `films`.

    The path's suffix names the format. An export that PyTorch refuses, or whose answers are too far, is a ConfigError.
    """
    write_network(network.scorer, network.rules, describe_network(checkpoint, network.rules), path)
    exported = FORMATS[path.suffix].open(path, "cpu", as_flag)
    found = compare(score_plainly(network.classifier, films), score(exported, films))
    if not all(value <= most for value, most in zip(found, ALLOWED, strict=True)):  # NaN is no match either
        raise ConfigError(
            f"{network.rules.name} was exported as {path.suffix}, but answers otherwise than its checkpoint: "
            f"probabilities differ by up to {found.probability:.2g} ({ALLOWED.probability:g} is allowed), scores of "
            f"unlike images by {found.unlike:.2g} of them ({ALLOWED.unlike:g}). Nothing was written: take the other "
            "format, or another version of PyTorch."
        )
    return exported, found


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
    levels, detector = LevelMeans(classifier.backbone, classifier.image_size), classifier.ood_detector
    probability, unlike = [], []
    with torch.inference_mode():
        for block in torch.split(torch.from_numpy(films), _BLOCK):
            probability.append(classifier.probability(classifier.predict_logits(block)))
            means = levels(block)[1]
            unlike.append(means.new_zeros(len(means)) if detector is None else detector.score(means))
    return torch.cat(probability).numpy(), torch.cat(unlike).numpy()


def measure_latency(
    networks: Mapping[str, Network], films: Images, batch: int, rounds: int | None = None
) -> dict[str, list[float]]:
    """Measure the seconds that each network takes for a batch of `batch` images, each time.

    Networks take turns, so that whatever else the machine does slows all of them. `rounds` is how often; None: as often
    as is worth the time.
    """
    images = np.resize(films, (batch, *films.shape[1:]))
    for network in networks.values():
        network.score(images)
    taken: dict[str, list[float]] = {name: [] for name in networks}
    least, most = ROUNDS if rounds is None else (rounds, rounds)
    begun = time.perf_counter()
    for number in range(most):
        if number >= least and time.perf_counter() - begun > _SECONDS:
            break
        for name, network in networks.items():
            start = time.perf_counter()
            network.score(images)
            taken[name].append(time.perf_counter() - start)
    return taken


def speed_table(sizes: Mapping[str, int], taken: Mapping[int, Mapping[str, Sequence[float]]]) -> PlainTable:
    """Lay out networks' sizes in bytes, and their latencies: what `measure_latency` gives, by number of images."""
    heads = ("MB", *(f"{count} image{'s' * (count > 1)}, ms" for count in taken))
    rows = {
        name: [f"{size / 1e6:,.1f}", *(f"{1e3 * median(seconds[name]):,.1f}" for seconds in taken.values())]
        for name, size in sizes.items()
    }
    return _table("Size, and median latency in alternating rounds", heads, rows)


def accuracy_table(answers: Mapping[str, Scores], labels: Sequence[int], rules: Rules) -> PlainTable:
    """Lay out how well networks do on test films, and how many of those each takes for unlike its training images."""
    rows = {}
    for name, (probability, unlike) in answers.items():
        predicted = predict_classes(probability, rules.threshold)
        found = measure(Predictions(probability.astype(np.float64), np.array(labels), predicted))
        flagged = f"{(unlike > 1).sum()}" if rules.outliers else "not told"
        rows[name] = [f"{found['auroc']:.4f}", f"{found['accuracy']:.4f}", flagged]
    return _table(f"{len(labels)} test films", ("AUROC", "accuracy", "unlike"), rows)


def _table(title: str, heads: Sequence[str], rows: Mapping[str, Sequence[str]]) -> PlainTable:
    table = PlainTable(title)
    table.add_column("")
    for head in heads:
        table.add_column(head, justify="right")
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table
