"""The `Metric` type, with methods for confidence intervals and for tests between configurations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np

from pneumo.metrics import calibration, clusters, confusion, intervals, significance
from pneumo.metrics.bootstrap import Resamples, bootstrap, percentiles
from pneumo.metrics.intervals import ROUNDING_ERROR, Array, Interval
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.significance import Counts, Difference, Placements, delong, permutation_test, placements

Compute = Callable[[Resamples], Array]
Method = Callable[["Metric", "Sample"], Interval]
Seeds = Sequence[Predictions]  # one configuration, one item per seed, the same images
Differences = dict[tuple[int, int], Difference]


class Metric(NamedTuple):
    """A metric of predictions."""

    name: str  # name in results and logs
    title: str  # title in tables
    compute: Compute  # function of R resamples that returns (R,)
    interval: Method  # method of the 95 % confidence interval; `percentile_interval` suits any metric
    bootstrap_statistic: Compute | None = None  # statistic of R resamples for the interval, (R, ...), if required
    # Classes without which the metric is undefined; "positive" and "negative" apply to binary predictions.
    needs: Literal["any", "positive", "negative", "both"] = "both"
    range: Interval = (0.0, 1.0)  # smallest and largest possible value
    multiclass_range: Interval | None = None  # range with more than two classes, if different
    higher_is_better: bool = True
    # Rank among the columns of leaderboards: narrow terminals hide the highest ranks first. Metrics with a rank also
    # appear in the table of a run. None: in neither table.
    rank: int | None = None
    about: str = ""  # definition of the metric, shown in leaderboards
    method: str = ""  # name of the `over_seeds` method, shown in leaderboards
    over_seeds: Callable[[Seeds, float], Interval] | None = None  # interval of the mean over seeds, given this mean
    compare: Callable[[Sequence[Seeds]], Differences] | None = None  # paired test of each pair of configurations

    @property
    def statistic(self) -> Compute | None:
        """Statistic to bootstrap for the interval, (R, ...)."""
        percentile = self.bootstrap_statistic is None and self.interval is percentile_interval
        return self.compute if percentile else self.bootstrap_statistic

    def whole_range(self, classes: int) -> Interval:
        """Return the metric's range, which is also the interval if the data determine none."""
        return self.multiclass_range or self.range if classes > 2 else self.range


class Sample:
    """Predictions with cached quantities that the intervals of several metrics share."""

    def __init__(self, predictions: Predictions, metrics: Iterable[Metric]) -> None:
        """Compute the number of patients and the effective sample size of each class."""
        self.predictions, self.clusters, self.metrics = predictions, predictions.clusters, list(metrics)
        self.original, self.classes = Resamples(predictions), predictions.probability.shape[1]
        self.total = len(np.unique(self.clusters))
        self.patients, self.sizes = clusters.class_sizes(
            predictions.label, predictions.correct, self.clusters, self.classes
        )

    def units(self, metric: Metric) -> int:
        """Count the patients of the smallest class that a metric requires; all patients if it requires none."""
        if metric.needs == "any":
            return self.total
        if self.classes == 2 and metric.needs != "both":
            return self.patients[metric.needs == "positive"]
        return min(self.patients)

    def value(self, metric: Metric) -> float:
        """Compute the metric on the original sample."""
        return float(metric.compute(self.original)[0])

    def interval(self, metric: Metric) -> Interval:
        """Compute the metric's 95 % confidence interval: its whole range if a required class is absent."""
        bottom, top = metric.whole_range(self.classes)
        low, high = metric.interval(metric, self) if self.units(metric) else (bottom, top)
        return max(bottom, low), min(top, high)

    @cached_property
    def draws(self) -> dict[str, Array]:
        """Bootstrap draws by metric name, (R, ...), for metrics with a bootstrap statistic."""
        statistics = {metric.name: compute for metric in self.metrics if (compute := metric.statistic)}

        def statistic(weights: Array) -> Array:
            resamples = Resamples(self.predictions, weights)
            return np.column_stack([compute(resamples) for compute in statistics.values()])

        draws = bootstrap(statistic, self.predictions.label, clusters=self.clusters)
        widths = [compute(self.original)[0].size for compute in statistics.values()]
        return dict(zip(statistics, np.split(draws, np.cumsum(widths)[:-1], axis=1), strict=True))

    @cached_property
    def tables(self) -> Array:
        """Confusion matrices drawn from the posterior, (R, C, C)."""
        return confusion.draw_tables(self.original.tables[0], self.sizes)

    @cached_property
    def placements(self) -> list[Placements]:
        """One-vs-rest placements of the images, one item per class."""
        binary = self.predictions.one_vs_rest.values()
        return [placements(each.score, each.positive, self.clusters) for each in binary]


def percentile_interval(metric: Metric, sample: Sample) -> Interval:
    """Compute the percentile bootstrap interval of a metric."""
    return percentiles(sample.draws[metric.name][:, 0])


def count_interval(function: Callable[[Array], Array]) -> Method:
    """Build the interval method of a function of confusion matrices: `posterior_interval`."""
    return lambda _, sample: confusion.posterior_interval(function, sample.original.tables[0], sample.tables)


def proportion_interval(metric: Metric, sample: Sample) -> Interval:
    """Compute the Wilson interval of the proportion of correct predictions, overall or for one class."""
    correct, positive = sample.predictions.correct, sample.predictions.positive
    chosen = np.ones_like(correct) if metric.needs == "any" else positive == (metric.needs == "positive")
    return clusters.clustered_wilson(correct[chosen], sample.clusters[chosen])


def recall_interval(function: Callable[[Array], Array]) -> Method:
    """Build the interval method of a recall: a proportion for two classes, a mean of proportions for more."""
    multiclass = count_interval(function)
    return lambda metric, sample: (proportion_interval if sample.classes == 2 else multiclass)(metric, sample)


def auroc_interval(metric: Metric, sample: Sample) -> Interval:
    """Compute the interval of an AUROC: by DeLong for two classes, by the bootstrap for a mean over classes."""
    if sample.classes == 2:
        return significance.delong_interval(sample.placements[0])
    if sample.units(metric) < 2:
        return metric.range
    widening = clusters.auroc_widening([each.residuals for each in sample.placements])
    deviation = float(sample.draws[metric.name].std(ddof=1)) * widening
    return intervals.logit_interval(sample.value(metric), deviation, sample.units(metric))


def auprc_interval(metric: Metric, sample: Sample) -> Interval:
    """Compute `precision_interval` from the standard deviation of bootstrap draws."""
    deviation = float(sample.draws[metric.name].std(ddof=1))
    residuals = [each.residuals for each in sample.placements]
    return clusters.precision_interval(sample.value(metric), deviation, residuals)


def ece_interval(metric: Metric, sample: Sample) -> Interval:
    """Compute the interval of an ECE: `calibration_error_interval`."""
    predictions = sample.predictions
    return calibration.calibration_error_interval(
        predictions.confidence, predictions.confidence_target, sample.draws[metric.name], sample.clusters
    )


def brier_interval(metric: Metric, sample: Sample) -> Interval:
    """Compute the interval of a mean over images: `mean_interval`."""
    draws, top = sample.draws[metric.name][:, 0], metric.whole_range(sample.classes)[1]
    return intervals.mean_interval(sample.value(metric), draws, sample.total, top)


def mean_accuracy_interval(seeds: Seeds, mean: float) -> Interval:
    """Compute the Wilson interval of a mean accuracy over seeds; more seeds do not narrow it."""
    fraction, images = count_correct(seeds) / len(seeds), len(seeds[0].label)
    size = min(1.0, clusters.effective_size(fraction, seeds[0].clusters) / images)
    return intervals.wilson(round(mean * images) * size, images * size)


def mean_auroc_interval(seeds: Seeds, _: float) -> Interval:
    """Compute the interval of a mean AUROC over seeds from the mean placements of the images."""
    return significance.delong_interval(average_placements(seeds))


def mean_balanced_accuracy_interval(seeds: Seeds, _: float) -> Interval:
    """Compute the interval of a mean balanced accuracy over seeds from the mean confusion matrix of two classes."""
    label, fraction = seeds[0].label, count_correct(seeds) / len(seeds)
    totals, correct = np.bincount(label), np.bincount(label, fraction)
    table = np.array([[correct[0], totals[0] - correct[0]], [totals[1] - correct[1], correct[1]]])
    sizes = clusters.class_sizes(label, fraction, seeds[0].clusters, 2)[1]
    return confusion.posterior_interval(confusion.balanced_accuracy, table, confusion.draw_tables(table, sizes))


def average_placements(seeds: Seeds) -> Placements:
    """Average placements over seeds on the same images; the mean of the result is the mean AUROC."""
    placed = [placements(seed.score, seed.positive, seeds[0].clusters) for seed in seeds]
    return placed[0]._replace(
        positive=np.mean([each.positive for each in placed], axis=0),
        negative=np.mean([each.negative for each in placed], axis=0),
    )


def count_correct(seeds: Seeds) -> Counts:
    """Count the seeds that predict each image correctly, (N,)."""
    return np.asarray(np.sum([seed.correct for seed in seeds], axis=0, dtype=np.int64))


def compare_aurocs(configurations: Sequence[Seeds]) -> Differences:
    """Compare the mean AUROCs of each pair of configurations by DeLong's test, or Obuchowski's with clusters."""
    placed = [average_placements(seeds) for seeds in configurations]
    return {(i, j): delong(placed[i], placed[j]) for i, j in combinations(range(len(placed)), 2)}


def compare_accuracies(configurations: Sequence[Seeds]) -> Differences:
    """Compare the mean accuracies of each pair of configurations: exact permutation test, paired bootstrap interval."""
    if len(configurations) < 2:
        return {}
    correct, first = [count_correct(seeds) for seeds in configurations], configurations[0][0]
    mean = np.stack([each / len(seeds) for each, seeds in zip(correct, configurations, strict=True)], axis=1)
    draws = bootstrap(
        lambda weights: weights @ mean / weights.sum(axis=1)[:, None], first.positive, clusters=first.clusters
    )
    differences = {}
    for i, j in combinations(range(len(configurations)), 2):
        seeds = (len(configurations[i]), len(configurations[j]))
        gain = correct[i] * seeds[1] - correct[j] * seeds[0]
        value = float(gain.sum() / (len(gain) * seeds[0] * seeds[1]))
        low, high = percentiles(draws[:, i] - draws[:, j])
        if high - low < ROUNDING_ERROR:
            low, high = intervals.zero_variance_difference(value, len(np.unique(first.clusters)))
        p = permutation_test(correct[i], correct[j], seeds, first.clusters)
        differences[i, j] = Difference(value, low, high, p)
    return differences
