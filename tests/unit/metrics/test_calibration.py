import numpy as np
import pytest

from pneumo.metrics.bootstrap import bootstrap
from pneumo.metrics.calibration import (
    BINS,
    bin_index,
    bin_residuals,
    calibration_curve,
    calibration_error_interval,
    chance_errors,
)
from pneumo.metrics.definitions import measure
from pneumo.metrics.intervals import wilson
from pneumo.metrics.predictions import Predictions


def calibration_error(confidence: np.ndarray, positive: np.ndarray) -> float:
    """Sum the gaps of the bins in a plain loop."""
    index = bin_index(confidence)
    masks = [index == number for number in range(BINS)]
    return float(sum(abs((confidence - positive)[mask].sum()) for mask in masks) / len(confidence))


def test_calibration_curve_of_a_known_case() -> None:
    # Ten images at 0.9, seven of them positive; ten at 0.1, all negative; one positive image at 1.
    probability = np.array([0.9] * 10 + [0.1] * 10 + [1.0])
    positive = np.array([True] * 7 + [False] * 13 + [True])
    low, high, certain = calibration_curve(Predictions.binary(probability, positive, probability > 0.5))
    assert (low.fraction, high.fraction) == (0, 0.7)
    assert (low.probability, high.probability) == pytest.approx((0.1, 0.9))
    assert (high.low, high.high) == wilson(7, 10)
    assert (certain.probability, certain.fraction) == (1, 1)


def test_bins_include_their_lower_edge_and_the_last_includes_one() -> None:
    assert bin_index(np.array([0, 1 / 15, 0.0666, 0.5, 14 / 15, 0.99, 1])).tolist() == [0, 1, 0, 7, 14, 14, 14]


def test_error_and_interval_use_the_same_bins_at_edges() -> None:
    # Neighbors around an edge cancel in the same bin if one is positive and one negative, but not in two bins.
    edges = np.linspace(0, 1, BINS + 1, dtype=np.float32)
    around = [np.nextafter(edges, np.float32(end)) for end in (0, 1)]
    probability = np.concatenate([edges, *around]).clip(0, 1).astype(np.float32)
    positive = np.random.default_rng(0).random(len(probability)) < 0.5
    expected = calibration_error(probability.astype(float), positive)
    drawn = bootstrap(lambda weights: weights @ bin_residuals(probability.astype(float), positive), positive, count=1)
    assert np.abs(drawn).shape == (1, BINS)
    found = measure(Predictions.binary(probability.astype(float), positive, probability > 0.5))
    assert found["ece"] == pytest.approx(expected, abs=1e-12)


def test_chance_errors_equal_errors_of_drawn_labels() -> None:
    generator = np.random.default_rng(0)
    probability = generator.beta(0.3, 0.3, 200)
    separate = [calibration_error(probability, generator.random(200) < probability) for _ in range(2000)]
    together = chance_errors(probability, 2000)
    assert np.quantile(together, (0.1, 0.5, 0.975)) == pytest.approx(np.quantile(separate, (0.1, 0.5, 0.975)), rel=0.05)


def interval(probability: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """Compute the interval of an ECE with 200 draws."""
    inside = bin_residuals(probability, positive) / len(positive)
    return calibration_error_interval(
        probability, positive, bootstrap(lambda weights: weights @ inside, positive, count=200)
    )


def test_interval_of_a_calibrated_network_starts_at_zero() -> None:
    generator = np.random.default_rng(1)
    probabilities = [generator.beta(0.5, 0.5, 100) for _ in range(200)]
    above = [interval(each, generator.random(100) < each)[0] > 0 for each in probabilities]
    assert np.mean(above) <= 0.07  # 0.03 with 200 draws, plus sampling error of 200 tests; 0.1 with the bootstrap only


def test_interval_of_a_miscalibrated_network_starts_above_zero() -> None:
    generator = np.random.default_rng(1)
    probability = generator.uniform(0, 0.8, 624)
    low, high = interval(probability, generator.random(624) < probability + 0.1)
    assert 0.02 < low < high < 0.2


@pytest.mark.parametrize("gap", [0.0, 0.02, 0.1])
def test_interval_of_an_ece_has_nominal_coverage(gap: float) -> None:
    """All probabilities are too low by the same amount, which is therefore the ECE for any bins."""
    generator = np.random.default_rng(0)
    covered, widths = [], []
    for _ in range(300):
        probability = generator.uniform(0.05, 0.85, 6240)
        positive = generator.random(6240) < probability + gap
        ill = np.flatnonzero(positive)[: round(624 * (0.45 + gap))]  # the same number in each test
        chosen = np.concatenate([ill, np.flatnonzero(~positive)[: 624 - len(ill)]])
        probability, positive = probability[chosen], positive[chosen]
        low, high = interval(probability, positive)
        covered.append(low <= gap <= high)
        widths.append(high - low)
    assert np.mean(covered) >= 0.93
    assert np.mean(widths) < 0.1
