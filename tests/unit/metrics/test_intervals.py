import numpy as np
import pytest

from pneumo.metrics.intervals import Estimate, logit_interval, mean_interval, subtract, wilson, zero_variance_interval


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_equals_published_values(hits: int, total: int, low: float, high: float) -> None:
    # Newcombe, Two-sided confidence intervals for the single proportion, 1998, table I, method 3
    assert wilson(hits, total) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [((56, 70), (48, 80), 0.0524, 0.3339), ((9, 10), (3, 10), 0.1705, 0.8090), ((10, 10), (0, 20), 0.6791, 1.0)],
)
def test_differences_of_independent_proportions_equal_published_values(
    first: tuple[int, int], second: tuple[int, int], low: float, high: float
) -> None:
    # Newcombe, Interval estimation for the difference between independent proportions, 1998, table II, method 10
    proportions = [Estimate(hits / total, *wilson(hits, total)) for hits, total in (first, second)]
    assert subtract(*proportions)[1:] == pytest.approx((low, high), abs=5e-5)


def test_logit_interval_is_within_range_and_asymmetric() -> None:
    low, high = logit_interval(0.99, 0.01, 100)
    assert 0 < low < 0.99 < high < 1
    assert 0.99 - low > high - 0.99
    assert logit_interval(0.5, 0.001, 100) == pytest.approx((0.5 - 0.00196, 0.5 + 0.00196), abs=1e-6)
    assert logit_interval(1.0, 0.0, 50) == wilson(50, 50)


@pytest.mark.parametrize("deviation", [0.0, 1e-17])
def test_interval_without_variance_follows_from_the_wilson_interval(deviation: float) -> None:
    differ = 1 - wilson(50, 50)[0]
    assert logit_interval(0.5, deviation, 50) == pytest.approx((0.5 - differ / 2, 0.5 + differ / 2))
    assert logit_interval(0.0, deviation, 50) == pytest.approx((0, differ))
    assert zero_variance_interval(0.5, 50, top=2) == pytest.approx((0.5 * (1 - differ), 0.5 + 1.5 * differ))


def test_variance_of_a_mean_is_shrunk_with_the_weight_of_four_images() -> None:
    draws = 0.2 + 0.01 * np.array([-1, 1] * 50)
    variance = (49 * draws.var(ddof=1) + 4 * 0.2 * 0.8 / 50) / 53
    assert mean_interval(0.2, draws, 50) == pytest.approx(logit_interval(0.2, variance**0.5, 50))
    assert mean_interval(0.4, 2 * draws, 50, top=2) == pytest.approx(2 * np.array(mean_interval(0.2, draws, 50)))
    assert mean_interval(0.4, np.full(9, 0.4), 50) == zero_variance_interval(0.4, 50)


def test_correlation_narrows_a_difference_and_leaves_its_value() -> None:
    first, second = Estimate(0.8, 0.7, 0.9), Estimate(0.6, 0.5, 0.7)
    assert subtract(first, second, correlation=1.0) == pytest.approx((0.2, 0.2, 0.2))
    assert subtract(first, second, correlation=0.5) == pytest.approx((0.2, 0.1, 0.3))
    assert subtract(first, second, correlation=-1.0) == pytest.approx((0.2, 0.0, 0.4))
