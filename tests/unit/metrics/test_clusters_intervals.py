"""Effects of patient clusters on all confidence intervals of a test."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.run_files import write_run
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix

from pneumo.data.index import Radiograph
from pneumo.errors import ConfigError
from pneumo.metrics.calibration import calibration_curve, chance_errors
from pneumo.metrics.clusters import clustered_wilson, effective_size
from pneumo.metrics.confusion import balanced_accuracy, draw_tables, posterior_interval, sensitivity
from pneumo.metrics.curves import measure_curves
from pneumo.metrics.definitions import estimates, paired_bootstrap
from pneumo.metrics.intervals import Estimate, subtract, wilson
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.summary import summarise
from pneumo.reporting.generalization import measure_gap
from pneumo.runs.prediction_files import read_predictions
from pneumo.runs.results import read_results
from pneumo.runs.split_files import write_splits

SINGLE = tuple(f"person{i}" for i in range(120))
PAIRS = tuple(f"person{i // 2}" for i in range(120))


def draw(seed: int) -> Predictions:
    """Draw predictions for 120 images in pairs with equal class and nearly equal probability."""
    generator = np.random.default_rng(seed)
    positive = np.repeat(np.arange(60) < 35, 2)
    probability = 1 / (1 + np.exp(-np.repeat(generator.normal(np.arange(60) < 35, 1), 2) + 0.5))
    probability = np.clip(probability + generator.normal(0, 0.01, 120), 0, 1).astype(np.float32).astype(float)
    return Predictions.binary(probability, positive, probability > 0.5)


def two_classes(patients: tuple[str, ...]) -> dict[str, object]:
    subtypes = tuple("bacterial" if i % 4 > 1 else "viral" for i in range(120))
    return dict(summarise(replace(draw(0), subtypes=subtypes, patients=patients)))


def three_classes(patients: tuple[str, ...]) -> dict[str, object]:
    generator = np.random.default_rng(1)
    label = np.repeat(np.arange(60) % 3, 2)
    probability = generator.dirichlet(np.ones(3), 60).repeat(2, axis=0) + np.eye(3)[label]
    probability = probability / probability.sum(axis=1, keepdims=True)
    return dict(summarise(Predictions(probability, label, probability.argmax(1), patients=patients)))


def curves(patients: tuple[str, ...]) -> dict[str, object]:
    found = measure_curves(replace(draw(0), patients=patients))
    return {"auroc": found.auroc, "auprc": found.auprc, "band": found.sensitivity.low.tolist()}


def generalization_gap(patients: tuple[str, ...]) -> dict[str, object]:
    return dict(measure_gap(replace(draw(0), patients=patients), draw(1)).drop)


def difference(patients: tuple[str, ...]) -> dict[str, object]:
    first = replace(draw(0), patients=patients)
    return {"brier": paired_bootstrap(first, replace(first, probability=first.probability**2, patients=()), "brier")}


def bins(patients: tuple[str, ...]) -> dict[str, object]:
    return {str(number): each for number, each in enumerate(calibration_curve(replace(draw(0), patients=patients)))}


@pytest.mark.parametrize("compute", [two_classes, three_classes, curves, generalization_gap, difference, bins])
def test_one_image_per_patient_equals_no_patients(compute: Callable[[tuple[str, ...]], dict[str, object]]) -> None:
    expected = compute(())
    assert compute(SINGLE) == expected
    assert compute(PAIRS) != expected


@pytest.mark.parametrize("seed", range(3))
def test_intervals_of_paired_images_equal_those_of_patients(seed: int) -> None:
    predictions = draw(seed)
    pairs, independent = estimates(replace(predictions, patients=PAIRS)), estimates(predictions)
    halves = estimates(predictions.take(np.arange(0, 120, 2)))
    for name in pairs.keys() - {"ece"}:
        width, half = np.ptp(pairs[name][1:]), np.ptp(halves[name][1:])
        assert width > 1.2 * np.ptp(independent[name][1:]), name
        assert width == pytest.approx(half, rel=0.15), name


def test_chance_errors_are_larger_for_correlated_labels_within_patients() -> None:
    probability = np.full(600, 0.5)
    patients = np.arange(600) // 6
    independent, clustered = (chance_errors(probability, 400, clusters) for clusters in (np.arange(600), patients))
    assert clustered.mean() == pytest.approx(np.sqrt(6) * independent.mean(), rel=0.15)


@pytest.mark.parametrize(("hits", "total"), [(0, 9), (9, 9), (1, 1), (5, 9), (390, 624), (623, 624)])
def test_wilson_interval_equals_scipy_exactly(hits: int, total: int) -> None:
    expected = binomtest(hits, total).proportion_ci(0.95, method="wilson")
    assert wilson(hits, total) == (expected.low, expected.high)
    correct = np.arange(total) < hits
    assert clustered_wilson(correct, np.arange(total)) == wilson(hits, total)


def test_proportion_without_images_has_the_whole_range() -> None:
    assert clustered_wilson(np.zeros(0, bool), np.zeros(0, np.int64)) == (0, 1)


def test_independent_seeds_increase_the_effective_sample_size() -> None:
    generator = np.random.default_rng(0)
    fraction = (generator.random((4, 10_000)) < 0.8).mean(axis=0)
    assert effective_size(fraction, np.arange(10_000)) == pytest.approx(40_000, rel=0.05)


def test_smaller_effective_sample_sizes_widen_posterior_intervals() -> None:
    table = confusion_matrix(np.arange(300) % 2, np.arange(300) % 3 // 2).astype(float)
    for metric in (balanced_accuracy, sensitivity):
        half, fewer = draw_tables(table / 2), draw_tables(table, [75, 75])
        assert posterior_interval(metric, table, fewer) == pytest.approx(posterior_interval(metric, table / 2, half))
    assert np.array_equal(draw_tables(table, [150, 150]), draw_tables(table))


def test_difference_of_equal_estimates_is_exactly_zero() -> None:
    first, second = Estimate(0.1 + 0.2, 0.1 + 0.2, 0.1 + 0.2), Estimate(0.3, 0.3, 0.3)
    assert subtract(first, second) == (0, 0, 0)


def test_patients_are_read_from_splits_csv(tmp_path: Path) -> None:
    write_run(tmp_path, "resnext", "sgd", 0, wrong=5, images=40, threshold=0.5)
    results = read_results(tmp_path) or {}
    assert read_predictions(tmp_path, results).patients == ()  # no splits.csv
    images = [Radiograph(f"test/{i}.jpeg", 0, "none", f"person{i // 4}", "test", 1, 0) for i in range(36)]
    write_splits(tmp_path / "splits.csv", {"test": images}, ["NORMAL", "PNEUMONIA"])
    found = read_predictions(tmp_path, results)
    assert found.patients == (*(f"person{i // 4}" for i in range(36)), *(f"test/{i}.jpeg" for i in range(36, 40)))
    assert found.clusters.tolist() == [*np.repeat(np.arange(9), 4), 9, 10, 11, 12]
    (tmp_path / "splits.csv").write_text("path\nx\n")
    with pytest.raises(ConfigError, match=r"splits\.csv"):
        read_predictions(tmp_path, results)
