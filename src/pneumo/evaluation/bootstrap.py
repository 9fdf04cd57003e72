"""The stratified bootstrap of the test's metrics, over all resamples at once.

Source: B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 (several samples: each class is
drawn from on its own) and 13 (percentile intervals).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pneumo.errors import ConfigError
from pneumo.evaluation.answers import Answers
from pneumo.evaluation.calibration import gaps
from pneumo.evaluation.clusters import Clusters, count_patients, stratify
from pneumo.evaluation.counts import count_metrics
from pneumo.evaluation.intervals import RESIDUE, Interval, unvaried_difference, whole_range, zero_residue
from pneumo.evaluation.results import TEST_METRICS

Array = npt.NDArray[np.float64]

RESAMPLES = 2_000
SEED = 0
_BLOCK = 4_000_000  # weights that are held at once, 32 MB
_WORK, _FEWEST = 100_000_000, 100  # images that are drawn in all, some ten seconds of work; the least number of draws


def bootstrap(
    statistic: Callable[[Array], Array],
    label: npt.NDArray[Any],
    count: int = RESAMPLES,
    seed: int = SEED,
    clusters: Clusters | None = None,
) -> Array:
    """Draw patients with replacement among those with images of the same classes; compute a statistic of each draw.

    The same classes and clusters in the same order are drawn the same: two runs on the same images are compared in
    pairs. Many images are drawn fewer times; see `resamples`.

    Args:
        statistic: Takes how often each image was drawn, (R, N), and gives (R, ...).
        label: The images' classes, (N,).
        count: The number of draws.
        seed: Of the draws.
        clusters: Patient number of each image, (N,); None: each image is drawn on its own.
    """
    generator = np.random.default_rng(seed)
    each = np.arange(len(label))
    patient = each if clusters is None else clusters
    alone = np.array_equal(patient, each)
    strata, size = stratify(label, patient), int(patient.max()) + 1
    count, block = resamples(len(label), count), max(1, _BLOCK // len(label))
    found = []
    for start in range(0, count, block):
        rows = min(block, count - start)
        drawn = [stratum[generator.integers(0, len(stratum), (rows, len(stratum)))] for stratum in strata]
        flat = np.hstack(drawn) + np.arange(rows)[:, None] * size
        weights = np.bincount(flat.ravel(), minlength=rows * size).reshape(rows, size).astype(np.float64)
        found.append(statistic(weights if alone else weights[:, patient]))
    return np.concatenate(found)


def resamples(images: int, count: int = RESAMPLES) -> int:
    """Compute the number of draws of so many images: at most `count`, and above 50,000 images fewer, at least 100.

    The ends of a normal distribution's interval have a standard error of 7 % of its width then, else of 1.5 %.
    """
    return min(count, max(_FEWEST, _WORK // images))


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
    return measurer(answers)(weights)


def measurer(answers: Answers, names: Collection[str] = TEST_METRICS) -> Callable[[Array], dict[str, Array]]:
    """Build `measure` for weights that come in parts: images are ranked once.

    Args:
        answers: To N images.
        names: Metrics that are needed, of TEST_METRICS; the ECE is left out where it is not.
    """
    order = np.argsort(-answers.score, kind="stable")
    ranked = answers.take(order)
    probability, positive, called = ranked[:3]
    inside = gaps(probability, positive) if "ece" in names else None

    def weigh(weights: Array) -> dict[str, Array]:
        weights = weights[:, order]
        of_positives = weights * positive
        of_negatives = weights - of_positives
        true, false = (join_ties(ranked.score, each) for each in (of_positives, of_negatives))
        total = weights.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                **_counted(of_positives @ called, of_negatives @ called, true.sum(axis=1), false.sum(axis=1)),
                **areas(true, false),
                **({} if inside is None else {"ece": np.abs(weights @ inside).sum(axis=1) / total}),
                "brier": weights @ (probability - positive) ** 2 / total,
            }

    return weigh


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
    low, high = zero_residue(np.quantile(draws, (0.025, 0.975)))
    return float(low), float(high)


def bootstrap_metrics(
    answers: Answers, names: Sequence[str], count: int = RESAMPLES, seed: int = SEED
) -> Mapping[str, Array]:
    """Give metrics of each draw, (R,), by their names."""
    weigh = measurer(answers, names)

    def statistic(weights: Array) -> Array:
        found = weigh(weights)
        return np.stack([found[name] for name in names], axis=1)

    draws = bootstrap(statistic, answers.positive, count, seed, answers.clusters)
    return dict(zip(names, draws.T, strict=True))


def paired_bootstrap(
    first: Answers, second: Answers, metric: str, count: int = RESAMPLES, seed: int = SEED
) -> Interval:
    """Compute the 95 % interval of the first run's metric less the second's, on the same images in the same order.

    It is the whole range of the difference where the metric needs a class with fewer than two patients, and
    `unvaried_difference` where all draws are the same.

    Raises:
        ConfigError: They are not.
    """
    if first.paths != second.paths:
        raise ConfigError(
            "The two runs were tested on other images, or in another order, so that they cannot be compared image by "
            "image: name runs of one data set, and sort both by `by_path()`."
        )
    clusters = first.clusters if first.patients else second.clusters
    patients, reach = _patients(metric, first.positive, clusters), float(np.ptp(whole_range(metric)))
    if patients < 2:
        return -reach, reach
    one, two = measurer(first, [metric]), measurer(second, [metric])

    def statistic(weights: Array) -> Array:
        difference: Array = one(weights)[metric] - two(weights)[metric]
        return difference

    draws = bootstrap(statistic, first.positive, count, seed, clusters)
    low, high = percentiles(draws)
    return (low, high) if high - low >= RESIDUE else unvaried_difference(float(draws.mean()), patients, reach)


def _patients(metric: str, positive: npt.NDArray[np.bool_], clusters: Clusters) -> int:
    """Count all patients, or for a metric of classes those of the smallest class that it needs."""
    if metric in ("accuracy", "brier", "ece"):
        return len(np.unique(clusters))
    negatives, positives = count_patients(positive.astype(np.int64), clusters, 2)
    return {"sensitivity": positives, "specificity": negatives}.get(metric, min(positives, negatives))


def _counted(tp: Array, fp: Array, positives: Array, negatives: Array) -> dict[str, Array]:
    rows = np.stack([negatives - fp, fp], axis=1), np.stack([positives - tp, tp], axis=1)
    return count_metrics(np.stack(rows, axis=1))
