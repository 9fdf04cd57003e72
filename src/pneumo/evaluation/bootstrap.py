"""The stratified bootstrap of the test's metrics, over all resamples at once.

Source: B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 (several samples: each class is
drawn from on its own) and 13 (percentile intervals).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pneumo.errors import ConfigError
from pneumo.evaluation.answers import Answers
from pneumo.evaluation.calibration import gaps
from pneumo.evaluation.counts import count_metrics
from pneumo.evaluation.intervals import Interval, whole_range

Array = npt.NDArray[np.float64]

RESAMPLES = 2_000
SEED = 0
_BLOCK = 4_000_000  # weights that are held at once, 32 MB


def bootstrap(
    statistic: Callable[[Array], Array], label: npt.NDArray[Any], count: int = RESAMPLES, seed: int = SEED
) -> Array:
    """Draw images with replacement within each class, and give a statistic of each draw.

    The same classes in the same order are drawn the same: two runs on the same images are compared in pairs.

    Args:
        statistic: Takes how often each image was drawn, (R, N), and gives (R, ...).
        label: The images' classes, (N,).
        count: The number of draws.
        seed: Of the draws.
    """
    generator = np.random.default_rng(seed)
    places = [np.flatnonzero(label == value) for value in np.unique(label)[::-1]]
    size, block = len(label), max(1, _BLOCK // len(label))
    found = []
    for start in range(0, count, block):
        rows = min(block, count - start)
        drawn = [place[generator.integers(0, len(place), (rows, len(place)))] for place in places]
        flat = np.hstack(drawn) + np.arange(rows)[:, None] * size
        weights = np.bincount(flat.ravel(), minlength=rows * size).reshape(rows, size)
        found.append(statistic(weights.astype(np.float64)))
    return np.concatenate(found)


def measure(answers: Answers, weights: Array) -> dict[str, Array]:
    """Give the metrics of images that count several times, or not at all.

    They are those of `pneumo.evaluation.metrics`: images of the same probability share their rank in the AUROC, and
    enter the average precision together.

    Args:
        answers: To N images.
        weights: How often each image counts, (R, N).

    Returns:
        (R,) for each of TEST_METRICS; no number where it would need a class that is absent.
    """
    ranked, weights = rank(answers, weights)
    probability, positive, called = ranked[:3]
    of_positives = weights * positive
    of_negatives = weights - of_positives
    true, false = (join_ties(ranked.score, each) for each in (of_positives, of_negatives))
    total = weights.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            **_counted(of_positives @ called, of_negatives @ called, true.sum(axis=1), false.sum(axis=1)),
            **areas(true, false),
            "ece": np.abs(weights @ gaps(probability, positive)).sum(axis=1) / total,
            "brier": weights @ (probability - positive) ** 2 / total,
        }


def rank(answers: Answers, weights: Array) -> tuple[Answers, Array]:
    """Sort images, and how often each counts, (R, N), by their scores, the highest first."""
    order = np.argsort(-answers.score, kind="stable")
    return answers.take(order), weights[:, order]


def join_ties(score: Array, counts: Array) -> Array:
    """Sum the counts of ranked images with the same score, (R, N) to (R, ties)."""
    ties = np.flatnonzero(np.diff(score, prepend=np.inf))  # where the next score begins
    joined: Array = np.add.reduceat(counts, ties, axis=1) if len(ties) < len(score) else counts
    return joined


def areas(true: Array, false: Array) -> dict[str, Array]:
    """Give area and average precision from the images of each class at each probability, (R, ties), falling."""
    found = np.cumsum(true, axis=1)
    called = found + np.cumsum(false, axis=1)
    positives, negatives = true.sum(axis=1), false.sum(axis=1)
    pairs = np.einsum("rt,rt->r", found - true / 2, false)  # in which the positive image ranks higher, ties by half
    return {
        "auroc": pairs / (positives * negatives),
        "auprc": np.einsum("rt,rt->r", true, found / np.maximum(called, 1)) / positives,
    }


def percentiles(draws: Array) -> Interval:
    """Give the middle 95 % of draws, (R,)."""
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)


def bootstrap_metrics(
    answers: Answers, names: Sequence[str], count: int = RESAMPLES, seed: int = SEED
) -> Mapping[str, Array]:
    """Give metrics of each draw, (R,), by their names."""

    def statistic(weights: Array) -> Array:
        found = measure(answers, weights)
        return np.stack([found[name] for name in names], axis=1)

    return dict(zip(names, bootstrap(statistic, answers.positive, count, seed).T, strict=True))


def paired_bootstrap(
    first: Answers, second: Answers, metric: str, count: int = RESAMPLES, seed: int = SEED
) -> Interval:
    """Give the 95 % interval of the first run's metric less the second's, on the same images in the same order.

    Where the metric needs a class that is absent, it is the difference's whole range.

    Raises:
        ConfigError: They are not.
    """
    if first.paths != second.paths:
        raise ConfigError(
            "The two runs were tested on other images, or in another order, so that they cannot be compared image by "
            "image: name runs of one data set, and sort both by `by_path()`."
        )
    if np.isnan(measure(first, np.ones((1, len(first.positive))))[metric]).any():
        low, high = whole_range(metric)
        return low - high, high - low
    draws = bootstrap(
        lambda weights: measure(first, weights)[metric] - measure(second, weights)[metric], first.positive, count, seed
    )
    return percentiles(draws)


def _counted(tp: Array, fp: Array, positives: Array, negatives: Array) -> dict[str, Array]:
    rows = np.stack([negatives - fp, fp], axis=1), np.stack([positives - tp, tp], axis=1)
    return count_metrics(np.stack(rows, axis=1))
