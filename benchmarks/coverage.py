"""Coverage of the 95 % confidence intervals of test metrics in simulated tests.

python benchmarks/coverage.py --full
"""

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rich
from scipy.stats import binom, norm

from pneumo.common.files import write_text
from pneumo.metrics import confusion
from pneumo.metrics.bootstrap import RESAMPLES, Resamples, bootstrap
from pneumo.metrics.calibration import bin_residuals, calibration_error_interval, chance_errors
from pneumo.metrics.confusion import draw_tables, posterior_interval
from pneumo.metrics.definitions import METRICS, estimates, measure
from pneumo.metrics.intervals import Array, Interval
from pneumo.metrics.predictions import Predictions

Counts = npt.NDArray[np.int64]
Table = Sequence[Sequence[float]]

# Sensitivity, specificity and scale of the logits, for typical and better runs.
CASES = ((0.99, 0.60, 1.0), (0.98, 0.80, 2.0), (0.95, 0.90, 2.0), (0.98, 0.95, 3.0), (0.99, 0.97, 4.0))
SIZES = ((20, 20), (10, 300), (300, 10), (50, 500), (390, 234))  # positive and negative images
POINTS = (*((s, c) for s, c, _ in CASES), (0.5, 0.9), (0.7, 0.7), (0.8, 0.9), (0.9, 0.8), (0.85, 0.95), (0.6, 0.99))
COUNT_METRICS = {"balanced_accuracy": confusion.balanced_accuracy, "f1": confusion.f1, "mcc": confusion.mcc}
_TABLE_METRICS = {"sensitivity": confusion.sensitivity, "specificity": confusion.specificity, **COUNT_METRICS}
# Sizes of three classes, and probabilities of the predicted classes given the true class.
_SIZES_OF_THREE = ((20, 20, 20), (10, 100, 300), (300, 50, 10), (234, 242, 148))
_TABLES_OF_THREE = (
    ((0.90, 0.05, 0.05), (0.10, 0.80, 0.10), (0.05, 0.25, 0.70)),
    ((0.70, 0.15, 0.15), (0.02, 0.96, 0.02), (0.01, 0.30, 0.69)),
    ((0.97, 0.02, 0.01), (0.01, 0.95, 0.04), (0.02, 0.08, 0.90)),
    ((0.99, 0.005, 0.005), (0.005, 0.985, 0.01), (0.01, 0.02, 0.97)),
)
# Dirichlet parameters of probabilities of two and three classes: mostly near 0 and 1, or in between.
SHAPES = ((0.1, 0.1), (0.5, 0.5), (2.0, 2.0), (0.2, 0.2, 0.2), (1.0, 1.0, 1.0))
_POPULATION = 1_000_000  # images whose metrics are the true values


def draw(
    generator: np.random.Generator, case: tuple[float, float, float], positives: int, negatives: int
) -> Predictions:
    """Draw predictions with normally distributed scores in each class."""
    sensitivity, specificity, scale = case
    threshold = norm.ppf(specificity)
    count = positives + negatives
    positive = np.arange(count) < positives
    ill, well = (generator.normal(mean, 1, count) for mean in (threshold + norm.ppf(sensitivity), 0))
    score = np.where(positive, ill, well) - threshold
    probability = (1 / (1 + np.exp(-scale * score))).astype(np.float32)
    return Predictions.binary(probability.astype(np.float64), positive, probability > 0.5)


def percentile_intervals(predictions: Predictions) -> dict[str, Interval]:
    """Compute the percentile bootstrap interval of every metric."""

    def statistic(weights: Array) -> Array:
        resamples = Resamples(predictions, weights)
        return np.stack([metric.compute(resamples) for metric in METRICS.values()], axis=1)

    low, high = np.quantile(bootstrap(statistic, predictions.label), (0.025, 0.975), axis=0)
    return dict(zip(METRICS, zip(low, high, strict=True), strict=True))


def pneumo_intervals(predictions: Predictions) -> dict[str, Interval]:
    """Compute the interval of every metric by pneumo's method."""
    return {name: (estimate.low, estimate.high) for name, estimate in estimates(predictions).items()}


def cover(
    case: tuple[float, float, float],
    size: tuple[int, int],
    tests: int,
    intervals: Callable[[Predictions], dict[str, Interval]],
) -> dict[str, float]:
    """Simulate tests and return the coverage of each metric's interval."""
    generator = np.random.default_rng(900 + CASES.index(case))
    positives = -(-size[0] * _POPULATION // sum(size))
    population = draw(generator, case, positives, _POPULATION - positives)
    truth, covered = measure(population), dict.fromkeys(METRICS, 0.0)
    for _ in range(tests):
        for name, (low, high) in intervals(draw(generator, case, *size)).items():
            covered[name] += (low <= truth[name] <= high) / tests
    return covered


@cache
def _count_intervals(cells: bytes, classes: int) -> dict[str, Interval]:
    table = np.frombuffer(cells).reshape(classes, classes)
    draws = draw_tables(table)
    return {name: posterior_interval(metric, table, draws) for name, metric in _TABLE_METRICS.items()}


def cover_counts(fractions: Table, size: Sequence[int], tests: int) -> dict[str, float]:
    """Return the coverage of metrics of confusion matrices whose rows are multinomial samples.

    With two classes it is a sum over all matrices with a relevant probability. With more, it is simulated.

    Args:
        fractions: Probabilities of predicted classes given the true class, (C, C).
        size: Number of images of each class.
        tests: Number of simulated tests.
    """
    rows = np.array(size)[:, None]
    table = (np.array(fractions) * rows)[None]
    truth = {name: float(metric(table)[0]) for name, metric in _TABLE_METRICS.items()}
    covered, total = dict.fromkeys(truth, 0.0), 0.0
    for table, weight in _enumerate(fractions, size) if len(size) == 2 else _simulate(fractions, size, tests):
        total += weight
        for name, (low, high) in _count_intervals(table.astype(np.float64).tobytes(), len(size)).items():
            covered[name] += weight * (low - 1e-12 <= truth[name] <= high + 1e-12)
    return {name: each / total for name, each in covered.items()}


def _enumerate(fractions: Table, size: Sequence[int]) -> Iterator[tuple[Counts, float]]:
    correct = [np.arange(count + 1) for count in size]
    probability = np.outer(*(binom.pmf(correct[k], size[k], fractions[k][k]) for k in (0, 1)))
    for negatives, positives in np.argwhere(probability > 1e-6):
        table = np.array([[negatives, size[0] - negatives], [size[1] - positives, positives]])
        yield table, float(probability[negatives, positives])


def _simulate(fractions: Table, size: Sequence[int], tests: int) -> Iterator[tuple[Counts, float]]:
    generator = np.random.default_rng(901)
    for _ in range(tests):
        yield np.stack([generator.multinomial(*row) for row in zip(size, fractions, strict=True)]), 1.0


def false_alarm_rate(shape: Sequence[float], images: int, tests: int) -> float:
    """Return the fraction of ECE intervals above 0 for labels drawn from the probabilities."""
    generator, alarms = np.random.default_rng(902), 0
    for _ in range(tests):
        probability = generator.dirichlet(shape, images).astype(np.float32).astype(np.float64)
        label = (np.cumsum(probability, axis=1)[:, :-1] < generator.random((images, 1))).sum(axis=1)
        confidence = probability[:, 1] if len(shape) == 2 else probability.max(axis=1)
        correct = label == (1 if len(shape) == 2 else probability.argmax(axis=1))
        residuals = bin_residuals(confidence, correct) / images
        if np.abs(residuals.sum(axis=0)).sum() <= np.quantile(chance_errors(confidence, RESAMPLES), 0.975):
            continue  # the interval starts at 0 regardless of the bootstrap

        def statistic(weights: Array, residuals: Array = residuals) -> Array:
            return weights @ residuals

        alarms += calibration_error_interval(confidence, correct, bootstrap(statistic, label))[0] > 0
    return alarms / tests


def coverage_range(coverages: Sequence[dict[str, float]], names: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Return the lowest and the highest coverage of each metric."""
    return {name: (min(each[name] for each in coverages), max(each[name] for each in coverages)) for name in names}


def main() -> None:
    """Run the simulations, print the coverage and write coverage-METHOD.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="1,000 tests per case, one hour (default: 20)")
    parser.add_argument("--percentile", action="store_true", help="use the percentile bootstrap for all metrics")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks"), help="folder (default: %(default)s)")
    arguments = parser.parse_args()
    tests = 1_000 if arguments.full else 20
    results: dict[str, object] = {"tests": tests}

    def record(name: str, value: dict[str, float] | dict[str, tuple[float, float]]) -> None:
        results[name] = value
        rich.print(f"{name}: " + ", ".join(f"{key} {np.round(each, 3)}" for key, each in value.items()))
        method = "percentile" if arguments.percentile else "pneumo"
        write_text(arguments.out / f"coverage-{method}.json", json.dumps(results, indent=2) + "\n")

    if not arguments.percentile:
        for two in SIZES:
            tables = [((c, 1 - c), (1 - s, s)) for s, c in POINTS]
            each = [cover_counts(table, two[::-1], tests) for table in tables]
            record(f"lowest, highest at {two}", coverage_range(each, COUNT_METRICS))
        for three in _SIZES_OF_THREE:
            each = [cover_counts(table, three, tests) for table in _TABLES_OF_THREE]
            record(f"lowest, highest at {three}", coverage_range(each, _TABLE_METRICS))
        for shape in SHAPES:
            alarms = {f"{images} images": false_alarm_rate(shape, images, tests) for images in (100, 624, 2000)}
            record(f"ECE of calibrated networks, shape {shape}: interval above 0", alarms)
    for two in SIZES[:-1] if not arguments.percentile else ():
        record(f"{two}, {CASES[2]}", cover(CASES[2], two, tests, pneumo_intervals))
    for case in CASES:
        intervals = percentile_intervals if arguments.percentile else pneumo_intervals
        record(f"{SIZES[-1]}, {case}", cover(case, SIZES[-1], tests, intervals))


if __name__ == "__main__":
    main()
