from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.reference_metrics import METRICS, draw_metric
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torchmetrics.functional.classification import binary_calibration_error

from pneumo.metrics.bootstrap import Resamples, bootstrap, count_draws, percentiles
from pneumo.metrics.definitions import METRICS as REGISTRY
from pneumo.metrics.definitions import paired_bootstrap
from pneumo.metrics.intervals import zero_variance_difference
from pneumo.metrics.predictions import Predictions


def draw(seed: int, size: int, levels: int) -> Predictions:
    """Draw predictions with `levels` + 1 distinct probabilities."""
    generator = np.random.default_rng(seed)
    positive = generator.permutation(np.arange(size) % 3 > 0)
    probability = np.round(np.clip(generator.normal(0.4 + 0.2 * positive, 0.3), 0, 1) * levels) / levels
    return Predictions.binary(probability.astype(np.float32).astype(float), positive, probability > 0.5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(6, 60), levels=st.sampled_from([1, 4, 16, 997]))
def test_weights_equal_repeated_images(seed: int, size: int, levels: int) -> None:
    predictions = draw(seed, size, levels)
    weights = bootstrap(lambda weights: weights, predictions.positive, count=3, seed=seed)
    resamples = Resamples(predictions, weights)
    found = {name: metric.compute(resamples) for name, metric in REGISTRY.items()}
    for row, counts in enumerate(weights.astype(int)):
        label, probability, predicted = (np.repeat(part.astype(float), counts) for part in _columns(predictions))
        for name in REGISTRY.keys() - {"ece"}:
            assert found[name][row] == pytest.approx(METRICS[name](label, probability, predicted), abs=1e-9), name
        probability = np.minimum(
            probability, np.nextafter(np.float32(1), np.float32(0))
        )  # torchmetrics has a bin for 1
        error = binary_calibration_error(torch.tensor(probability, dtype=torch.float32), torch.tensor(label).int(), 15)
        assert found["ece"][row] == pytest.approx(float(error), abs=1e-5)


def _columns(predictions: Predictions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return predictions.positive, predictions.positive_probability, predictions.predicted > 0


def test_class_sizes_are_constant_and_images_are_drawn_uniformly() -> None:
    positive = np.random.default_rng(0).permutation(np.arange(50) < 20)
    weights = bootstrap(lambda weights: weights, positive, count=4000)
    assert (weights[:, positive].sum(axis=1) == 20).all()
    assert (weights[:, ~positive].sum(axis=1) == 30).all()
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.08)
    np.testing.assert_allclose(weights[:, positive].var(axis=0).mean(), 1 - 1 / 20, atol=0.03)  # multinomial


def test_large_samples_are_drawn_in_blocks() -> None:
    positive = np.arange(3_000_000) % 2 > 0  # a block contains one resample
    draws = bootstrap(lambda weights: weights.sum(axis=1), positive, count=3)
    assert draws.tolist() == [3_000_000] * 3


@pytest.mark.parametrize(("images", "draws"), [(624, 2000), (50_000, 2000), (200_000, 500), (10_000_000, 100)])
def test_number_of_draws_is_bounded_for_large_samples(images: int, draws: int) -> None:
    assert count_draws(images) == draws
    assert count_draws(images, 3) == 3


def test_rounding_residues_are_zero() -> None:
    draws = np.array([1e-17, -1e-17, 3e-16])
    assert percentiles(draws) == (0, 0)


def test_draws_are_reproducible_by_seed() -> None:
    predictions = draw(0, 100, 1000)
    one, two = (draw_metric(predictions, "auroc", 50, seed=7) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert (draw_metric(predictions, "auroc", 50, seed=8) != one).any()


def test_interval_equals_scipy() -> None:
    predictions = draw(3, 300, 1000)
    samples = [(predictions.predicted > 0)[predictions.positive == label].astype(float) for label in (True, False)]

    def balanced(ill: np.ndarray, well: np.ndarray, axis: int = -1) -> np.ndarray:
        mean: np.ndarray = (ill.mean(axis=axis) + 1 - well.mean(axis=axis)) / 2
        return mean

    expected = stats.bootstrap(
        samples, balanced, n_resamples=8_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    found = percentiles(draw_metric(predictions, "balanced_accuracy", 8_000))
    assert found == pytest.approx(tuple(expected), abs=0.004)


def test_differences_use_paired_draws() -> None:
    one = draw(5, 400, 1000)
    assert paired_bootstrap(one, one, "auprc") == zero_variance_difference(0, min(np.bincount(one.positive)))
    blurred = np.where(np.arange(400) % 9 == 0, 0.5, one.positive_probability)
    worse = Predictions.binary(blurred, one.positive, one.predicted > 0)
    low, high = paired_bootstrap(one, worse, "auroc")
    value = METRICS["auroc"](*_columns(one)) - METRICS["auroc"](*_columns(worse))
    assert low < value < high
    alone = percentiles(draw_metric(one, "auroc"))
    assert high - low < (alone[1] - alone[0]) / 2  # common variation cancels


def test_difference_without_a_required_class_has_the_whole_range() -> None:
    predictions = Predictions.binary(np.linspace(0.1, 0.9, 9), np.ones(9, bool), np.arange(9) > 4)
    assert paired_bootstrap(predictions, predictions, "auroc") == (-1, 1)
    assert paired_bootstrap(predictions, predictions, "mcc") == (-2, 2)
    assert paired_bootstrap(predictions, predictions, "specificity") == (-1, 1)
    assert paired_bootstrap(predictions, predictions, "sensitivity") == zero_variance_difference(0, 9)
    one_negative = replace(predictions, label=(np.arange(9) > 0).astype(int))
    assert paired_bootstrap(one_negative, one_negative, "auroc") == (-1, 1)


def test_interval_of_a_constant_difference_has_a_positive_width() -> None:
    positive = np.arange(30) < 10
    perfect = Predictions.binary(np.where(positive, 0.9, 0.1), positive, positive)
    wrong = Predictions.binary(perfect.probability[:, 0], positive, ~positive)
    for metric, value, total, reach in (("accuracy", 1, 30, 1), ("auroc", 1, 10, 1), ("mcc", 2, 10, 2)):
        assert paired_bootstrap(perfect, wrong, metric, 50) == pytest.approx(
            zero_variance_difference(value, total, reach)
        )
    low, high = paired_bootstrap(perfect, wrong, "mcc", 50)
    assert low < 2 == high
    of_five = replace(perfect, patients=tuple(str(i // 5) for i in range(30)))
    assert paired_bootstrap(of_five, wrong, "accuracy", 50) == pytest.approx(zero_variance_difference(1, 6))
