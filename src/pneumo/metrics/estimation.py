"""The `Metric` type, and the methods of its interval and of its tests between runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np

from pneumo.metrics import calibration, clusters, confusion, intervals, significance
from pneumo.metrics.bootstrap import Resamples, bootstrap, percentiles
from pneumo.metrics.intervals import RESIDUE, Array, Interval
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.significance import Counts, Difference, Placements, delong, placements, swap_test

Compute = Callable[[Resamples], Array]
Method = Callable[["Metric", "Sample"], Interval]
Seeds = Sequence[Predictions]  # of one configuration, for the same images
Differences = dict[tuple[int, int], Difference]


class Metric(NamedTuple):
    """A metric of predictions."""

    name: str  # as in the keys of results and logs
    title: str  # as in tables
    compute: Compute  # function of R resamples, (R,)
    interval: Method  # method of the 95 % interval; `percentile_interval` fits any metric
    drawn: Compute | None = None  # statistic of resamples that the method needs, (R, ...), if it needs one
    # Classes without which the metric is undefined: of two classes the positive, the negative, or both.
    needs: Literal["any", "positive", "negative", "both"] = "both"
    range: Interval = (0.0, 1.0)  # its least and largest value
    range_of_several: Interval | None = None  # the same with more than two classes, if it differs
    higher_is_better: bool = True
    # Rank among the columns of leaderboards, the highest of which go first where a terminal is narrow; a metric with a
    # rank is in the table of a run too. None: in neither.
    rank: int | None = None
    about: str = ""  # meaning, for readers of a leaderboard
    method: str = ""  # name of the method of `over_seeds`, for readers of a leaderboard
    # Interval of the mean over seeds, from the seeds and this mean; test of all pairs of configurations by their seeds.
    over_seeds: Callable[[Seeds, float], Interval] | None = None
    compare: Callable[[Sequence[Seeds]], Differences] | None = None

    @property
    def statistic(self) -> Compute | None:
        """Statistic that the bootstrap computes for the interval, (R, ...)."""
        return self.compute if self.drawn is None and self.interval is percentile_interval else self.drawn

    def whole_range(self, classes: int) -> Interval:
        """Return its range: the interval where nothing is known."""
        return self.range_of_several or self.range if classes > 2 else self.range


class Sample:
    """Predictions, and what the intervals of several metrics share."""

    def __init__(self, predictions: Predictions, metrics: Iterable[Metric]) -> None:
        """Count patients and effective numbers of images."""
        self.predictions, self.clusters, self.metrics = predictions, predictions.clusters, list(metrics)
        self.once, self.classes = Resamples(predictions), predictions.probability.shape[1]
        self.total = len(np.unique(self.clusters))
        self.patients, self.sizes = clusters.class_sizes(
            predictions.label, predictions.right, self.clusters, self.classes
        )

    def units(self, metric: Metric) -> int:
        """Count the patients of the smallest class that a metric needs, or all patients."""
        if metric.needs == "any":
            return self.total
        if self.classes == 2 and metric.needs != "both":
            return self.patients[metric.needs == "positive"]
        return min(self.patients)

    def value(self, metric: Metric) -> float:
        """Compute the metric itself."""
        return float(metric.compute(self.once)[0])

    def interval(self, metric: Metric) -> Interval:
        """Compute the metric's 95 % interval: its whole range where a class that it needs is absent."""
        least, most = metric.whole_range(self.classes)
        low, high = metric.interval(metric, self) if self.units(metric) else (least, most)
        return max(least, low), min(most, high)

    @cached_property
    def draws(self) -> dict[str, Array]:
        """Bootstrap draws of the statistic of each metric that has one, (R, ...)."""
        statistics = {metric.name: each for metric in self.metrics if (each := metric.statistic)}

        def statistic(weights: Array) -> Array:
            resamples = Resamples(self.predictions, weights)
            return np.column_stack([compute(resamples) for compute in statistics.values()])

        draws = bootstrap(statistic, self.predictions.label, clusters=self.clusters)
        widths = [compute(self.once)[0].size for compute in statistics.values()]
        return dict(zip(statistics, np.split(draws, np.cumsum(widths)[:-1], axis=1), strict=True))

    @cached_property
    def tables(self) -> Array:
        """Confusion tables drawn from the posterior, (R, C, C)."""
        return confusion.draw_tables(self.once.tables[0], self.sizes)

    @cached_property
    def placements(self) -> list[Placements]:
        """Placements of the images, of each class against the rest."""
        sides = self.predictions.against_rest.values()
        return [placements(side.score, side.positive, self.clusters) for side in sides]


def percentile_interval(metric: Metric, sample: Sample) -> Interval:
    """Compute the middle 95 % of bootstrap draws of a metric."""
    return percentiles(sample.draws[metric.name][:, 0])


def count_interval(function: Callable[[Array], Array]) -> Method:
    """Build the method of a function of confusion tables: `posterior_interval`."""
    return lambda _, sample: confusion.posterior_interval(function, sample.once.tables[0], sample.tables)


def proportion_interval(metric: Metric, sample: Sample) -> Interval:
    """Compute Wilson's interval of the proportion of images, or images of one class, that are predicted right."""
    right, positive = sample.predictions.right, sample.predictions.positive
    chosen = np.ones_like(right) if metric.needs == "any" else positive == (metric.needs == "positive")
    return clusters.clustered_wilson(right[chosen], sample.clusters[chosen])


def recall_interval(function: Callable[[Array], Array]) -> Method:
    """Build the method of a recall: a proportion of images of one class, or with more than two a mean of them."""
    several = count_interval(function)
    return lambda metric, sample: (proportion_interval if sample.classes == 2 else several)(metric, sample)


def auroc_interval(metric: Metric, sample: Sample) -> Interval:
    """Compute the interval of an AUROC: DeLong's, or of a mean over classes by the bootstrap's deviation."""
    if sample.classes == 2:
        return significance.delong_interval(sample.placements[0])
    if sample.units(metric) < 2:
        return metric.range
    widening = clusters.area_widening([each.residuals for each in sample.placements])
    deviation = float(sample.draws[metric.name].std(ddof=1)) * widening
    return intervals.logit_interval(sample.value(metric), deviation, sample.units(metric))


def auprc_interval(metric: Metric, sample: Sample) -> Interval:
    """Compute `precision_interval` of the bootstrap's deviation."""
    deviation = float(sample.draws[metric.name].std(ddof=1))
    parts = [each.residuals for each in sample.placements]
    return clusters.precision_interval(sample.value(metric), deviation, parts)


def ece_interval(metric: Metric, sample: Sample) -> Interval:
    """Compute `pneumo.metrics.calibration.calibration_error_interval`."""
    predictions = sample.predictions
    return calibration.calibration_error_interval(
        predictions.confidence, predictions.confirmed, sample.draws[metric.name], sample.clusters
    )


def brier_interval(metric: Metric, sample: Sample) -> Interval:
    """Compute the interval of a mean over images: `mean_interval`."""
    draws, top = sample.draws[metric.name][:, 0], metric.whole_range(sample.classes)[1]
    return intervals.mean_interval(sample.value(metric), draws, sample.total, top)


def accuracy_of_seeds(seeds: Seeds, mean: float) -> Interval:
    """Compute Wilson's interval of a mean accuracy for the number of images: more seeds do not narrow it."""
    share, images = count_right(seeds) / len(seeds), len(seeds[0].label)
    size = min(1.0, clusters.effective_size(share, seeds[0].clusters) / images)
    return intervals.wilson(round(mean * images) * size, images * size)


def auroc_of_seeds(seeds: Seeds, _: float) -> Interval:
    """Compute the interval of a mean AUROC from the mean placements of the images."""
    return significance.delong_interval(average_placements(seeds))


def balanced_accuracy_of_seeds(seeds: Seeds, _: float) -> Interval:
    """Compute the interval of a mean balanced accuracy from the mean confusion table of two classes."""
    label, share = seeds[0].label, count_right(seeds) / len(seeds)
    totals, right = np.bincount(label), np.bincount(label, share)
    table = np.array([[right[0], totals[0] - right[0]], [totals[1] - right[1], right[1]]])
    sizes = clusters.class_sizes(label, share, seeds[0].clusters, 2)[1]
    return confusion.posterior_interval(confusion.balanced_accuracy, table, confusion.draw_tables(table, sizes))


def average_placements(seeds: Seeds) -> Placements:
    """Average the placements of several seeds on the same images: their mean is the mean of the AUROCs."""
    found = [placements(seed.score, seed.positive, seeds[0].clusters) for seed in seeds]
    return found[0]._replace(
        positive=np.mean([each.positive for each in found], axis=0),
        negative=np.mean([each.negative for each in found], axis=0),
    )


def count_right(seeds: Seeds) -> Counts:
    """Count the seeds that are right on each image, (N,)."""
    return np.asarray(np.sum([seed.right for seed in seeds], axis=0, dtype=np.int64))


def compare_aurocs(configurations: Sequence[Seeds]) -> Differences:
    """Compare the mean AUROCs of each pair of configurations by DeLong's test, of clustered images by Obuchowski's."""
    placed = [average_placements(seeds) for seeds in configurations]
    return {(i, j): delong(placed[i], placed[j]) for i, j in combinations(range(len(placed)), 2)}


def compare_accuracies(configurations: Sequence[Seeds]) -> Differences:
    """Compare the mean accuracies of each pair of configurations: exact swaps, and the paired bootstrap's interval."""
    if len(configurations) < 2:
        return {}
    right, first = [count_right(seeds) for seeds in configurations], configurations[0][0]
    mean = np.stack([each / len(seeds) for each, seeds in zip(right, configurations, strict=True)], axis=1)
    draws = bootstrap(
        lambda weights: weights @ mean / weights.sum(axis=1)[:, None], first.positive, clusters=first.clusters
    )
    found = {}
    for i, j in combinations(range(len(configurations)), 2):
        seeds = (len(configurations[i]), len(configurations[j]))
        gain = right[i] * seeds[1] - right[j] * seeds[0]
        value = float(gain.sum() / (len(gain) * seeds[0] * seeds[1]))
        low, high = percentiles(draws[:, i] - draws[:, j])
        if high - low < RESIDUE:
            low, high = intervals.unvaried_difference(value, len(np.unique(first.clusters)))
        found[i, j] = Difference(value, low, high, swap_test(right[i], right[j], seeds, first.clusters))
    return found
