from dataclasses import replace
from math import exp, log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import binomtest
from sklearn.metrics import class_likelihood_ratios, roc_curve

from pneumo.errors import ConfigError
from pneumo.metrics.diagnostics import curve_points, likelihood_ratios, predictive_values
from pneumo.metrics.predictions import Predictions


def count(true_positive: int, missed: int, alarms: int, true_negative: int, copies: int = 1) -> Predictions:
    """Build predictions with these counts; with several copies, each patient has that many equal images."""
    positive = np.repeat([True, True, False, False], [true_positive, missed, alarms, true_negative])
    predicted = np.repeat([True, False, True, False], [true_positive, missed, alarms, true_negative])
    patients = tuple(str(i) for i in range(len(positive)) for _ in range(copies))
    positive, predicted = positive.repeat(copies), predicted.repeat(copies)
    return Predictions.binary(np.where(predicted, 0.9, 0.1), positive, predicted, patients=patients)


def draw(seed: int, images: int = 300, digits: int = 9) -> Predictions:
    generator = np.random.default_rng(seed)
    positive = generator.permutation(images) < images * 0.4
    margin = generator.normal(2.0 * positive - 1, 1.5).round(digits)
    patients = tuple(map(str, np.sort(generator.integers(0, images, images))))
    return Predictions.binary(expit(margin), positive, margin > 0, margin=margin, patients=patients)


def test_likelihood_ratios_equal_the_calculation_by_hand() -> None:
    ratios = likelihood_ratios(count(90, 10, 20, 180))
    assert ratios is not None
    error = sqrt(1 / 90 - 1 / 100 + 1 / 20 - 1 / 200)
    assert ratios.positive == pytest.approx((9, 9 * exp(-1.959964 * error), 9 * exp(1.959964 * error)), abs=1e-5)
    assert ratios.positive == pytest.approx((9, 5.9083, 13.7095), abs=1e-3)
    error = sqrt(1 / 10 - 1 / 100 + 1 / 180 - 1 / 200)
    assert ratios.negative == pytest.approx(
        (1 / 9, exp(log(1 / 9) - 1.96 * error), exp(log(1 / 9) + 1.96 * error)), 1e-4
    )


@pytest.mark.parametrize("seed", range(3))
def test_likelihood_ratios_equal_scikit_learn(seed: int) -> None:
    predictions = draw(seed)
    ratios = likelihood_ratios(predictions)
    assert ratios is not None
    expected = class_likelihood_ratios(predictions.label, predictions.predicted)
    assert (ratios.positive.value, ratios.negative.value) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("counts", [(50, 0, 5, 45), (50, 0, 0, 50), (40, 10, 0, 50), (0, 50, 0, 50), (1, 0, 0, 1)])
def test_likelihood_ratios_with_an_empty_cell_are_finite_and_within_their_intervals(counts: tuple[int, ...]) -> None:
    ratios = likelihood_ratios(count(*counts))
    assert ratios is not None
    for value, low, high in ratios:
        assert 0 < low < value < high < np.inf
    detected, missed, alarms, rejected = (each + 0.5 for each in counts)
    expected = detected / (detected + missed) / (alarms / (alarms + rejected))
    assert ratios.positive.value == pytest.approx(expected)


def test_patients_with_images_of_both_classes_narrow_a_ratio_whose_rates_rise_together() -> None:
    generator = np.random.default_rng(0)
    sensitive = np.repeat(generator.random(400) < 0.5, 2)  # a patient whose images are all predicted positive
    positive = np.tile([True, False], 400)
    pairs = tuple(str(i // 2) for i in range(800))
    apart = tuple(str(i) for i in range(800))
    predictions = Predictions.binary(np.full(800, 0.5), positive, sensitive, patients=pairs)
    together, independent = likelihood_ratios(predictions), likelihood_ratios(replace(predictions, patients=apart))
    assert together is not None
    assert independent is not None
    assert together.positive.high / together.positive.low < 1.02
    assert independent.positive.high / independent.positive.low > 1.2


def test_predictive_values_equal_the_calculation_by_hand() -> None:
    own, rare = predictive_values(count(90, 10, 20, 180), [0.05])
    assert own.prevalence == pytest.approx(1 / 3)
    interval = binomtest(90, 110).proportion_ci(0.95, method="wilson")
    assert own.ppv == pytest.approx((90 / 110, interval.low, interval.high))
    interval = binomtest(180, 190).proportion_ci(0.95, method="wilson")
    assert own.npv == pytest.approx((180 / 190, interval.low, interval.high))
    assert rare.ppv is not None
    assert rare.npv is not None
    assert rare.ppv.value == pytest.approx(0.05 * 0.9 / (0.05 * 0.9 + 0.95 * 0.1))  # 0.3214
    assert rare.npv.value == pytest.approx(0.95 * 0.9 / (0.95 * 0.9 + 0.05 * 0.1))  # 0.9942
    half = 1.959964 * sqrt(10 / 90 / 100 + 180 / 20 / 200)  # Mercaldo et al., on the logit scale
    assert rare.ppv[1:] == pytest.approx(expit(logit(rare.ppv.value) + np.array([-half, half])), abs=1e-6)
    half = 1.959964 * sqrt(90 / 10 / 100 + 20 / 180 / 200)
    assert rare.npv[1:] == pytest.approx(expit(logit(rare.npv.value) + np.array([-half, half])), abs=1e-6)


def test_predictive_values_at_the_own_prevalence_agree_with_bayes() -> None:
    own, stated = predictive_values(count(90, 10, 20, 180), [100 / 300])
    assert own.ppv is not None
    assert stated.ppv is not None
    assert stated.ppv.value == pytest.approx(own.ppv.value)


def test_equal_images_of_a_patient_do_not_narrow_any_interval() -> None:
    once, thrice = count(40, 10, 20, 80), count(40, 10, 20, 80, copies=3)
    for first, second in (
        (likelihood_ratios(once), likelihood_ratios(thrice)),
        (predictive_values(once, [0.1])[1][1:], predictive_values(thrice, [0.1])[1][1:]),
        (predictive_values(once)[0][1:], predictive_values(thrice)[0][1:]),
    ):
        assert first is not None
        assert second is not None
        for one, three in zip(first, second, strict=True):
            assert one is not None
            assert three is not None
            assert three.value == pytest.approx(one.value)
            assert np.ptp(three) == pytest.approx(np.ptp(one), rel=0.05)


@pytest.mark.parametrize("counts", [(90, 10, 0, 0), (0, 0, 20, 80)])
def test_absent_classes_leave_no_ratio_and_no_predictive_value(counts: tuple[int, ...]) -> None:
    predictions = count(*counts)
    assert likelihood_ratios(predictions) is None
    assert curve_points(predictions) == []
    (own,) = predictive_values(predictions, [0.1])
    assert own.ppv is own.npv is None


def test_predictive_value_without_such_predictions_is_none() -> None:
    own = predictive_values(count(0, 10, 0, 20))[0]
    assert own.ppv is None
    assert own.npv is not None


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 5.0, float("nan")])
def test_fractions_outside_the_range_are_refused(value: float) -> None:
    with pytest.raises(ConfigError, match="prevalence"):
        predictive_values(count(1, 1, 1, 1), [value])
    with pytest.raises(ConfigError, match="level"):
        curve_points(count(1, 1, 1, 1), [value])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), digits=st.integers(0, 6), level=st.sampled_from([0.5, 0.9, 0.95]))
def test_curve_points_are_the_best_ones_of_the_roc_curve(seed: int, digits: int, level: float) -> None:
    predictions = draw(seed, 60, digits)
    false, true, _ = roc_curve(predictions.label, predictions.score, drop_intermediate=False)
    at_specificity, at_sensitivity = curve_points(predictions, [level])
    assert at_specificity.value.value == pytest.approx(true[1 - false >= level - 1e-9].max())
    assert at_sensitivity.value.value == pytest.approx((1 - false)[true >= level - 1e-9].max())
    for point in (at_specificity, at_sensitivity):
        detected = predictions.positive_probability > point.threshold
        rates = {
            "sensitivity": detected[predictions.positive].mean(),
            "specificity": (~detected)[~predictions.positive].mean(),
        }
        assert rates[point.given] >= level - 1e-9
        (other,) = rates.keys() - {point.given}
        assert rates[other] == pytest.approx(point.value.value)
        assert 0 <= point.value.low <= point.value.value <= point.value.high <= 1


def test_thresholds_separate_saturated_probabilities() -> None:
    margin = np.array([-5.0, -4.0, 40.0, 41.0, 42.0, 43.0])
    positive = np.array([False, False, False, True, True, True])
    predictions = Predictions.binary(expit(margin), positive, margin > 0, margin=margin)
    points = curve_points(predictions, [0.9])
    assert [point.value.value for point in points] == [1, 1]
    assert all(0.9 < point.threshold <= 1 for point in points)


def test_curve_points_of_a_perfect_classifier_do_not_have_zero_width() -> None:
    margin = np.linspace(-5, 5, 100)
    for point in curve_points(Predictions.binary(expit(margin), margin > 0, margin > 0, margin=margin)):
        assert point.value.value == 1
        assert 0.9 < point.value.low < 0.94  # Wilson, 50 of 50: 0.929
        assert point.threshold == pytest.approx(0.5)


def test_three_classes_are_read_as_positive_against_negative() -> None:
    probability = np.array([[0.8, 0.1, 0.1], [0.3, 0.3, 0.4], [0.1, 0.7, 0.2], [0.2, 0.3, 0.5]])
    three = Predictions(probability, np.array([0, 1, 2, 0]), probability.argmax(1))
    two = Predictions.binary(1 - probability[:, 0], three.label > 0, three.predicted > 0)
    assert likelihood_ratios(three) == likelihood_ratios(two)
    assert predictive_values(three, [0.1]) == predictive_values(two, [0.1])
    for first, second in zip(curve_points(three), curve_points(two), strict=True):
        assert first.value == second.value
        assert first.threshold == pytest.approx(second.threshold)
