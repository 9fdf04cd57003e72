"""Parity checks and latency measurements of exported networks against their checkpoints."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pneumo.common.terminal import PlainTable
from pneumo.errors import ConfigError
from pneumo.inference.backend import Images, Network, Rules, Scores, as_flag
from pneumo.inference.export.formats import FORMATS
from pneumo.inference.export.writer import describe_network, write_network
from pneumo.inference.torch_backend import CheckpointNetwork
from pneumo.metrics.definitions import measure
from pneumo.metrics.predictions import Predictions, predict_classes
from pneumo.models.classifier import Classifier
from pneumo.models.ood_detector import MultiLevelBackbone

_BLOCK = 32  # images per batch
ROUNDS = (3, 30)  # minimum and maximum number of measurements
_MAX_SECONDS = 10.0  # no new round starts after this time


class Difference(NamedTuple):
    """The largest differences between the outputs of two networks for the same images."""

    probability: float  # of any class
    ood_score: float  # relative where the score is above 1, absolute elsewhere


TOLERANCE = Difference(1e-4, 1e-3)  # differences that rounding can cause


def write_checked(
    network: CheckpointNetwork, checkpoint: Path, images: Images, path: Path
) -> tuple[Network, Difference]:
    """Export a network in the format of the path's suffix, and compare its outputs with the checkpoint's.

    Returns:
        The network loaded from the file, and its largest differences on `images`.

    Raises:
        ConfigError: PyTorch cannot export the network, or a difference exceeds `TOLERANCE`.
    """
    write_network(network.module, network.rules, describe_network(checkpoint, network), path)
    exported = FORMATS[path.suffix].open(path, "cpu", as_flag)
    expected, ood_score = network.combine([_score_classifier(each, images) for each in network.classifiers])
    difference = compare((expected.numpy(), ood_score.numpy()), score(exported, images))
    if not all(value <= limit for value, limit in zip(difference, TOLERANCE, strict=True)):  # also catches NaN
        raise ConfigError(
            f"{network.rules.name} exported as {path.suffix} differs from its checkpoint: probabilities by up to "
            f"{difference.probability:.2g} (limit {TOLERANCE.probability:g}), OOD scores by up to "
            f"{difference.ood_score:.2g} (limit {TOLERANCE.ood_score:g}). Nothing was written. Use another format or "
            "another version of PyTorch."
        )
    return exported, difference


def compare(expected: Scores, actual: Scores) -> Difference:
    """Compute the largest differences between two outputs for the same images."""
    (expected_probability, expected_score), (probability, ood_score) = expected, actual
    relative = np.abs(ood_score - expected_score) / np.maximum(expected_score, 1)
    return Difference(float(np.abs(probability - expected_probability).max()), float(relative.max()))


def score(network: Network, images: Images) -> Scores:
    """Score images (N, 1, S, S): the first one alone, the others in batches."""
    blocks = [images[:1], *(images[start : start + _BLOCK] for start in range(1, len(images), _BLOCK))]
    probability, ood_score = zip(*map(network.score, blocks), strict=True)
    return np.concatenate(probability), np.concatenate(ood_score)


def score_reference(classifier: Classifier, images: Images) -> Scores:
    """Score images (N, 1, S, S) as the test of a run does, without the optimisations of inference and export."""
    probability, ood_score = _score_classifier(classifier, images)
    return probability.numpy(), ood_score.numpy()


def _score_classifier(classifier: Classifier, images: Images) -> tuple[Tensor, Tensor]:
    levels, detector = MultiLevelBackbone(classifier.backbone, classifier.input_format.size), classifier.ood_detector
    probability, ood_score = [], []
    with torch.inference_mode():
        for block in torch.split(torch.from_numpy(images), _BLOCK):
            probability.append(classifier.probability(classifier.predict_logits(block)))
            means = levels(block)[1]
            ood_score.append(means.new_zeros(len(means)) if detector is None else detector.score(means))
    return torch.cat(probability), torch.cat(ood_score)


def measure_latency(
    networks: Mapping[str, Network], images: Images, batch_size: int, rounds: int | None = None
) -> dict[str, list[float]]:
    """Measure the seconds that each network takes per batch, in alternating rounds.

    Rounds alternate so that other load on the machine slows all networks equally.

    Args:
        networks: Networks by name.
        images: Images (N, 1, S, S), repeated or cut to the batch size.
        batch_size: Number of images per batch.
        rounds: Number of measurements per network; None: a number within `ROUNDS`, depending on their duration.

    Returns:
        The measurements of each network.
    """
    batch = np.resize(images, (batch_size, *images.shape[1:]))
    for network in networks.values():
        network.score(batch)
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    min_rounds, max_rounds = ROUNDS if rounds is None else (rounds, rounds)
    started = time.perf_counter()
    for index in range(max_rounds):
        if index >= min_rounds and time.perf_counter() - started > _MAX_SECONDS:
            break
        for name, network in networks.items():
            start = time.perf_counter()
            network.score(batch)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def speed_table(sizes: Mapping[str, int], latencies: Mapping[int, Mapping[str, Sequence[float]]]) -> PlainTable:
    """Build the table of file sizes, in bytes, and of the results of `measure_latency` by batch size."""
    headers = ("MB", *(f"{count} image{'s' * (count > 1)}, ms" for count in latencies))
    rows = {
        name: [f"{size / 1e6:,.1f}", *(f"{1e3 * median(seconds[name]):,.1f}" for seconds in latencies.values())]
        for name, size in sizes.items()
    }
    return _table("File size and median latency", headers, rows)


def accuracy_table(scores: Mapping[str, Scores], labels: Sequence[int], rules: Rules) -> PlainTable:
    """Build the table of AUROC, accuracy and number of OOD images of each network on the test set."""
    rows = {}
    for name, (probability, ood_score) in scores.items():
        predicted = predict_classes(probability, rules.threshold)
        metrics = measure(Predictions(probability.astype(np.float64), np.array(labels), predicted))
        ood_count = f"{(ood_score > 1).sum()}" if rules.has_ood_detector else "no detector"
        rows[name] = [f"{metrics['auroc']:.4f}", f"{metrics['accuracy']:.4f}", ood_count]
    return _table(f"{len(labels)} test images", ("AUROC", "accuracy", "OOD images"), rows)


def _table(title: str, headers: Sequence[str], rows: Mapping[str, Sequence[str]]) -> PlainTable:
    table = PlainTable(title)
    table.add_column("")
    for header in headers:
        table.add_column(header, justify="right")
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table
