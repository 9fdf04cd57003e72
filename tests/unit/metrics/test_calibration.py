import numpy as np
import pytest

from pneumo.metrics.bootstrap import bootstrap
from pneumo.metrics.calibration import (
    BINS,
    bin_of,
    bin_residuals,
    calibration_curve,
    calibration_error_interval,
    chance_errors,
)
from pneumo.metrics.definitions import measure
from pneumo.metrics.intervals import wilson
from pneumo.metrics.predictions import Predictions


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Sum up the gaps of the bins, one by one."""
    place = bin_of(confidence)
    inside = [place == number for number in range(BINS)]
    return float(sum(abs((confidence - right)[here].sum()) for here in inside) / len(confidence))


def test_a_curve_of_a_known_case() -> None:
    # Ten images called 0.9, seven of them positive; ten called 0.1, none of them; one called 1.
    probability = np.array([0.9] * 10 + [0.1] * 10 + [1.0])
    positive = np.array([True] * 7 + [False] * 13 + [True])
    low, high, certain = calibration_curve(Predictions.binary(probability, positive, probability > 0.5))
    assert (low.share, high.share) == (0, 0.7)
    assert (low.probability, high.probability) == pytest.approx((0.1, 0.9))
    assert (high.low, high.high) == wilson(7, 10)
    assert (certain.probability, certain.share) == (1, 1)


def test_a_lower_edge_belongs_to_its_bin_and_one_to_the_last() -> None:
    assert bin_of(np.array([0, 1 / 15, 0.0666, 0.5, 14 / 15, 0.99, 1])).tolist() == [0, 1, 0, 7, 14, 14, 14]


def test_probabilities_at_an_edge_count_alike_in_the_error_and_in_its_interval() -> None:
    # Of any two neighbours around an edge, one right and one wrong: in one bin they cancel, in two they do not.
    edges = np.linspace(0, 1, BINS + 1, dtype=np.float32)
    around = [np.nextafter(edges, np.float32(side)) for side in (0, 1)]
    probability = np.concatenate([edges, *around]).clip(0, 1).astype(np.float32)
    positive = np.random.default_rng(0).random(len(probability)) < 0.5
    expected = calibration_error(probability.astype(float), positive)
    drawn = bootstrap(lambda weights: weights @ bin_residuals(probability.astype(float), positive), positive, count=1)
    assert np.abs(drawn).shape == (1, BINS)
    found = measure(Predictions.binary(probability.astype(float), positive, probability > 0.5))
    assert found["ece"] == pytest.approx(expected, abs=1e-12)


def test_the_error_of_labels_drawn_from_the_probabilities_is_that_of_chance() -> None:
    generator = np.random.default_rng(0)
    probability = generator.beta(0.3, 0.3, 200)
    one_by_one = [calibration_error(probability, generator.random(200) < probability) for _ in range(2000)]
    together = chance_errors(probability, 2000)
    assert np.quantile(together, (0.1, 0.5, 0.975)) == pytest.approx(
        np.quantile(one_by_one, (0.1, 0.5, 0.975)), rel=0.05
    )


def interval(probability: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """Compute an ECE's interval with 200 draws."""
    inside = bin_residuals(probability, positive) / len(positive)
    return calibration_error_interval(
        probability, positive, bootstrap(lambda weights: weights @ inside, positive, count=200)
    )


def test_the_interval_of_a_calibrated_network_begins_at_zero() -> None:
    generator = np.random.default_rng(1)
    probabilities = [generator.beta(0.5, 0.5, 100) for _ in range(200)]
    above = [interval(each, generator.random(100) < each)[0] > 0 for each in probabilities]
    assert np.mean(above) <= 0.07  # 0.03 with 200 draws, and what 200 tests leave open; by the bootstrap alone 0.1


def test_the_interval_of_a_badly_calibrated_network_does_not_begin_at_zero() -> None:
    generator = np.random.default_rng(1)
    probability = generator.uniform(0, 0.8, 624)
    low, high = interval(probability, generator.random(624) < probability + 0.1)
    assert 0.02 < low < high < 0.2


@pytest.mark.parametrize("gap", [0.0, 0.02, 0.1])
def test_the_interval_of_an_ece_covers_it(gap: float) -> None:
    """Each probability is too low by the same amount, so that this is the ECE, in whatever bins."""
    generator = np.random.default_rng(0)
    covered, widths = [], []
    for _ in range(300):
        probability = generator.uniform(0.05, 0.85, 6240)
        positive = generator.random(6240) < probability + gap
        ill = np.flatnonzero(positive)[: round(624 * (0.45 + gap))]  # as many in each test
        chosen = np.concatenate([ill, np.flatnonzero(~positive)[: 624 - len(ill)]])
        probability, positive = probability[chosen], positive[chosen]
        low, high = interval(probability, positive)
        covered.append(low <= gap <= high)
        widths.append(high - low)
    assert np.mean(covered) >= 0.93
    assert np.mean(widths) < 0.1
