"""How often the 95 % intervals of a test's metrics contain the truth, in simulated tests.

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

# Sensitivity, specificity, and how far probabilities are from 0.5: the kind of run here, and better ones.
CASES = ((0.99, 0.60, 1.0), (0.98, 0.80, 2.0), (0.95, 0.90, 2.0), (0.98, 0.95, 3.0), (0.99, 0.97, 4.0))
SIZES = ((20, 20), (10, 300), (300, 10), (50, 500), (390, 234))  # positive and negative images
POINTS = (*((s, c) for s, c, _ in CASES), (0.5, 0.9), (0.7, 0.7), (0.8, 0.9), (0.9, 0.8), (0.85, 0.95), (0.6, 0.99))
COUNTED = {"balanced_accuracy": confusion.balanced_accuracy, "f1": confusion.f1, "mcc": confusion.mcc}
_AVERAGED = {"sensitivity": confusion.sensitivity, "specificity": confusion.specificity, **COUNTED}  # of three classes
# Images of each of three classes, and what each is predicted to be.
_SIZES_OF_THREE = ((20, 20, 20), (10, 100, 300), (300, 50, 10), (234, 242, 148))
_TABLES_OF_THREE = (
    ((0.90, 0.05, 0.05), (0.10, 0.80, 0.10), (0.05, 0.25, 0.70)),
    ((0.70, 0.15, 0.15), (0.02, 0.96, 0.02), (0.01, 0.30, 0.69)),
    ((0.97, 0.02, 0.01), (0.01, 0.95, 0.04), (0.02, 0.08, 0.90)),
    ((0.99, 0.005, 0.005), (0.005, 0.985, 0.01), (0.01, 0.02, 0.97)),
)
# Parameters of a Dirichlet distribution of probabilities, for two and three classes: most near 0 and 1, or in between.
SHAPES = ((0.1, 0.1), (0.5, 0.5), (2.0, 2.0), (0.2, 0.2, 0.2), (1.0, 1.0, 1.0))
_MANY = 1_000_000  # images, whose metrics are the truth


def draw(
    generator: np.random.Generator, case: tuple[float, float, float], positives: int, negatives: int
) -> Predictions:
    """Draw predictions whose scores are normally distributed in each class."""
    sensitivity, specificity, scale = case
    threshold = norm.ppf(specificity)
    count = positives + negatives
    positive = np.arange(count) < positives
    ill, well = (generator.normal(mean, 1, count) for mean in (threshold + norm.ppf(sensitivity), 0))
    score = np.where(positive, ill, well) - threshold
    probability = (1 / (1 + np.exp(-scale * score))).astype(np.float32)
    return Predictions.binary(probability.astype(np.float64), positive, probability > 0.5)


def percentile_intervals(answers: Predictions) -> dict[str, Interval]:
    """Compute the plain bootstrap's interval of every metric."""

    def statistic(weights: Array) -> Array:
        resamples = Resamples(answers, weights)
        return np.stack([metric.compute(resamples) for metric in METRICS.values()], axis=1)

    low, high = np.quantile(bootstrap(statistic, answers.label), (0.025, 0.975), axis=0)
    return dict(zip(METRICS, zip(low, high, strict=True), strict=True))


def own_intervals(answers: Predictions) -> dict[str, Interval]:
    """Compute pneumo's interval of every metric."""
    return {name: (estimate.low, estimate.high) for name, estimate in estimates(answers).items()}


def cover(
    case: tuple[float, float, float],
    size: tuple[int, int],
    tests: int,
    intervals: Callable[[Predictions], dict[str, Interval]],
) -> dict[str, float]:
    """Return the coverage of each metric."""
    generator = np.random.default_rng(900 + CASES.index(case))
    positives = -(-size[0] * _MANY // sum(size))
    many = draw(generator, case, positives, _MANY - positives)
    truth, covered = measure(many), dict.fromkeys(METRICS, 0.0)
    for _ in range(tests):
        for name, (low, high) in intervals(draw(generator, case, *size)).items():
            covered[name] += (low <= truth[name] <= high) / tests
    return covered


@cache
def _count_intervals(cells: bytes, classes: int) -> dict[str, Interval]:
    table = np.frombuffer(cells).reshape(classes, classes)
    drawn = draw_tables(table)
    return {name: posterior_interval(metric, table, drawn) for name, metric in _AVERAGED.items()}


def cover_counts(fractions: Table, size: Sequence[int], tests: int) -> dict[str, float]:
    """Return the coverage of metrics of confusion tables, whose rows are multinomial samples of these fractions.

    With two classes it is a sum over all tables that are likely enough to matter, with more it is simulated.
    """
    rows = np.array(size)[:, None]
    table = (np.array(fractions) * rows)[None]
    truth = {name: float(metric(table)[0]) for name, metric in _AVERAGED.items()}
    covered, total = dict.fromkeys(truth, 0.0), 0.0
    for table, weight in _likely(fractions, size) if len(size) == 2 else _drawn(fractions, size, tests):
        total += weight
        for name, (low, high) in _count_intervals(table.astype(np.float64).tobytes(), len(size)).items():
            covered[name] += weight * (low - 1e-12 <= truth[name] <= high + 1e-12)
    return {name: each / total for name, each in covered.items()}


def _likely(fractions: Table, size: Sequence[int]) -> Iterator[tuple[Counts, float]]:
    right = [np.arange(count + 1) for count in size]
    chance = np.outer(*(binom.pmf(right[k], size[k], fractions[k][k]) for k in (0, 1)))
    for quiet, hits in np.argwhere(chance > 1e-6):
        yield np.array([[quiet, size[0] - quiet], [size[1] - hits, hits]]), float(chance[quiet, hits])


def _drawn(fractions: Table, size: Sequence[int], tests: int) -> Iterator[tuple[Counts, float]]:
    generator = np.random.default_rng(901)
    for _ in range(tests):
        yield np.stack([generator.multinomial(*row) for row in zip(size, fractions, strict=True)]), 1.0


def alarm(shape: Sequence[float], images: int, tests: int) -> float:
    """Return how often the ECE's interval excludes 0 though labels are drawn from the probabilities themselves."""
    generator, alarms = np.random.default_rng(902), 0
    for _ in range(tests):
        probability = generator.dirichlet(shape, images).astype(np.float32).astype(np.float64)
        label = (np.cumsum(probability, axis=1)[:, :-1] < generator.random((images, 1))).sum(axis=1)
        confidence = probability[:, 1] if len(shape) == 2 else probability.max(axis=1)
        right = label == (1 if len(shape) == 2 else probability.argmax(axis=1))
        inside = bin_residuals(confidence, right) / images
        if np.abs(inside.sum(axis=0)).sum() <= np.quantile(chance_errors(confidence, RESAMPLES), 0.975):
            continue  # it begins at 0, whatever the bootstrap draws

        def statistic(weights: Array, inside: Array = inside) -> Array:
            return weights @ inside

        alarms += calibration_error_interval(confidence, right, bootstrap(statistic, label))[0] > 0
    return alarms / tests


def worst(found: Sequence[dict[str, float]], names: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Return the lowest and the highest coverage of each metric."""
    return {name: (min(each[name] for each in found), max(each[name] for each in found)) for name in names}


def main() -> None:
    """Simulate, print, and write coverage.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="1,000 tests of each case, an hour; default: 20")
    parser.add_argument("--percentile", action="store_true", help="the percentile bootstrap for all metrics instead")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks"), help="folder (default: %(default)s)")
    given = parser.parse_args()
    tests = 1_000 if given.full else 20
    found: dict[str, object] = {"tests": tests}

    def note(name: str, value: dict[str, float] | dict[str, tuple[float, float]]) -> None:
        found[name] = value
        rich.print(f"{name}: " + ", ".join(f"{key} {np.round(each, 3)}" for key, each in value.items()))
        method = "percentile" if given.percentile else "pneumo"
        write_text(given.out / f"coverage-{method}.json", json.dumps(found, indent=2) + "\n")

    if not given.percentile:
        for two in SIZES:
            tables = [((c, 1 - c), (1 - s, s)) for s, c in POINTS]
            note(f"lowest, highest at {two}", worst([cover_counts(t, two[::-1], tests) for t in tables], COUNTED))
        for three in _SIZES_OF_THREE:
            each = [cover_counts(table, three, tests) for table in _TABLES_OF_THREE]
            note(f"lowest, highest at {three}", worst(each, _AVERAGED))
        for shape in SHAPES:
            alarms = {f"{images} images": alarm(shape, images, tests) for images in (100, 624, 2000)}
            note(f"ECE of calibrated networks, shape {shape}: interval above 0", alarms)
    for two in SIZES[:-1] if not given.percentile else ():
        note(f"{two}, {CASES[2]}", cover(CASES[2], two, tests, own_intervals))
    for case in CASES:
        intervals = percentile_intervals if given.percentile else own_intervals
        note(f"{SIZES[-1]}, {case}", cover(case, SIZES[-1], tests, intervals))


if __name__ == "__main__":
    main()
