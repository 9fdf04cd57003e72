from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import gaussian_kde, iqr

from pneumo.metrics import local_adaptation
from pneumo.metrics.definitions import measure
from pneumo.metrics.local_adaptation import (
    FOLDS,
    MIN_PATIENTS,
    LocalPoint,
    ThresholdRule,
    apply_local_point,
    cross_fit,
    fit_local_point,
    fit_recalibration,
    patient_folds,
    ranks_inversely,
    smooth_threshold,
)
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.recalibration import fit_logistic, measure_calibration

REFERENCE = LocalPoint(temperature=1.0, intercept=0.0, threshold=0.5, margin=0.3)
SMOOTHED = ThresholdRule("smoothed", None)


def sample(count: int, seed: int = 0, temperature: float = 1.0, shift: float = 0.0) -> tuple[np.ndarray, Predictions]:
    """Return logit differences with a planted miscalibration and the network's predictions, two images per patient."""
    generator = np.random.default_rng(seed)
    odds = np.repeat(generator.normal(0, 1.5, count // 2), 2) + generator.normal(0, 0.5, count)
    positive = generator.random(count) < expit(odds)
    difference = temperature * (odds - shift)
    probability = expit(difference)
    patients = tuple(f"p{i // 2}" for i in range(count))
    paths = tuple(f"{i}.png" for i in range(count))
    predictions = Predictions.binary(
        probability, positive, probability > 0.5, ("NORMAL", "PNEUMONIA"), paths, difference, patients
    )
    return difference, predictions


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_planted_temperature_and_prior_are_undone_within_the_interval(seed: int) -> None:
    difference, before = sample(400, seed, temperature=3.0, shift=1.0)
    planted, undone = (
        measure_calibration(each) for each in (before, cross_fit(before, difference, REFERENCE, SMOOTHED, 0.1))
    )
    assert planted.slope is not None
    assert undone.slope is not None
    assert planted.intercept is not None
    assert undone.intercept is not None
    assert planted.slope.high < 1
    assert undone.slope.low < 1 < undone.slope.high
    assert planted.intercept.low > 0
    assert undone.intercept.low < 0 < undone.intercept.high
    point = fit_local_point(difference, before.positive, REFERENCE, SMOOTHED, 0.1)
    fit = fit_logistic(difference, before.positive, before.clusters, slope=True)
    assert fit is not None
    half = 1.96 * np.sqrt(np.diag(fit.covariance))
    assert abs(1 / point.temperature - 1 / 3) < half[1]
    assert abs(point.intercept - 1.0) < half[0]


def test_with_many_images_the_penalties_vanish() -> None:
    difference, before = sample(40_000, temperature=2.0, shift=-0.5)
    fit = fit_logistic(difference, before.positive, slope=True)
    assert fit is not None
    np.testing.assert_allclose(fit_recalibration(difference, before.positive, 1.0), fit.coefficients, atol=2e-3)


def test_separable_classes_have_a_finite_slope() -> None:
    difference = np.linspace(-1, 1, 20)
    intercept, slope = fit_recalibration(difference, difference > 0, 1.0)
    assert 1 < slope < 50
    assert intercept == pytest.approx(0, abs=1e-3)


def test_the_fit_does_not_depend_on_the_scale_of_the_logits() -> None:
    difference, before = sample(100)
    point = fit_local_point(difference, before.positive, REFERENCE, SMOOTHED, 0.1)
    scaled = fit_local_point(5 * difference, before.positive, REFERENCE._replace(temperature=5.0), SMOOTHED, 0.1)
    assert scaled.temperature == pytest.approx(5 * point.temperature, rel=1e-5)
    assert scaled.intercept == pytest.approx(point.intercept, abs=1e-5)
    assert scaled.threshold == pytest.approx(point.threshold, abs=1e-6)


@pytest.mark.parametrize("target", [0.8, 0.9, 1.0])
def test_target_rules_reach_their_target_on_the_images_of_the_fit(target: float) -> None:
    difference, before = sample(200)
    for name in ("sensitivity", "specificity"):
        point = fit_local_point(difference, before.positive, REFERENCE, ThresholdRule(name, target), 0.1)
        values = measure(apply_local_point(before, difference, point))
        other = "specificity" if name == "sensitivity" else "sensitivity"
        assert target <= values[name] < target + 0.02
        assert values[other] > 0.2 or target == 1.0  # the threshold is not the trivial one


def test_the_smoothed_threshold_maximizes_the_youden_index_of_kernel_density_estimates() -> None:
    generator = np.random.default_rng(0)
    below, above = generator.normal(0, 1, 60), generator.gamma(2, 1.5, 40)
    odds, positive = np.concatenate([below, above]), np.arange(100) >= 60
    densities = [
        gaussian_kde(each, 0.9 * min(each.std(), iqr(each) / 1.34) * len(each) ** -0.2 / each.std(ddof=1))
        for each in (below, above)
    ]

    def index(threshold: float) -> float:
        specificity, missed = (each.integrate_box_1d(-np.inf, threshold) for each in densities)
        return float(specificity - missed)

    chosen = smooth_threshold(odds, positive)
    assert index(chosen) >= max(map(index, np.linspace(-2, 6, 300))) - 1e-4


def test_the_smoothed_threshold_of_normal_classes_is_their_midpoint() -> None:
    generator = np.random.default_rng(0)
    odds, positive = generator.normal(0, 1, 20_000), np.arange(20_000) >= 15_000
    assert smooth_threshold(odds + 2 * positive, positive) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("below", [[0.0], [0.0, 0.0, 0.0], [0.0, 0.1]])
def test_the_smoothed_threshold_of_separable_classes_is_between_them(below: list[float]) -> None:
    odds = np.array([*below, 5.0, 5.5])
    assert max(below) < smooth_threshold(odds, odds > 1) < 5


def test_empirical_rules_maximize_their_metric_on_the_images_of_the_fit() -> None:
    difference, before = sample(150, 3)
    for name, metric in (("youden", "balanced_accuracy"), ("accuracy", "accuracy")):
        point = fit_local_point(difference, before.positive, REFERENCE, ThresholdRule(name, None), 0.1)
        best = measure(apply_local_point(before, difference, point))[metric]
        probabilities = expit(difference / point.temperature + point.intercept)
        others = [
            measure(apply_local_point(before, difference, point._replace(threshold=float(each))))[metric]
            for each in probabilities
        ]
        assert best >= max(others) - 1e-9


def test_the_margin_keeps_the_fraction_of_uncertain_images() -> None:
    difference, before = sample(200)
    point = fit_local_point(difference, before.positive, REFERENCE, SMOOTHED, 0.2)
    odds = difference / point.temperature + point.intercept
    assert point.margin is not None
    assert (np.abs(odds - logit(point.threshold)) <= point.margin + 1e-5).mean() == pytest.approx(0.2, abs=0.01)
    uncalibrated = REFERENCE._replace(margin=None)
    assert fit_local_point(difference, before.positive, uncalibrated, SMOOTHED, 0.2).margin is None


def test_the_same_operating_point_keeps_all_predictions() -> None:
    difference, before = sample(100)
    after = apply_local_point(before, difference, REFERENCE)
    np.testing.assert_array_equal(after.predicted, before.predicted)
    np.testing.assert_allclose(after.probability, before.probability, atol=1e-7)
    assert (after.paths, after.patients, after.classes) == (before.paths, before.patients, before.classes)


def test_folds_contain_whole_patients_and_leave_both_classes_to_the_fit() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        patients = generator.integers(0, 30, 60)
        label = generator.integers(0, 2, 60)
        masks = np.array(list(patient_folds(label, patients)))
        assert masks.shape == (FOLDS, 60)
        assert (masks.sum(axis=0) == 1).all()
        for patient in np.unique(patients):
            assert masks[:, patients == patient].all(axis=1).sum() == 1
        assert all(len(np.unique(label[~mask])) == 2 for mask in masks)


def test_the_fewest_patients_leave_both_classes_in_each_fit() -> None:
    """The worst case: patients with images of both classes, and as few others as possible."""
    for shared in range(MIN_PATIENTS + 1):
        alone = MIN_PATIENTS - shared
        patients = np.concatenate([np.repeat(np.arange(shared), 2), shared + np.arange(2 * alone)])
        label = np.concatenate([np.tile([0, 1], shared), np.repeat([0, 1], alone)])
        assert all(len(np.unique(label[~mask])) == 2 for mask in patient_folds(label, patients))


def test_cross_fitting_predicts_no_patient_from_its_own_images(monkeypatch: pytest.MonkeyPatch) -> None:
    difference, before = sample(120)
    owner = dict(zip(difference.tolist(), before.patients, strict=True))
    fitted: list[set[str]] = []

    def record(values: np.ndarray, *arguments: object) -> LocalPoint:
        fitted.append({owner[value] for value in values.tolist()})
        return REFERENCE._replace(intercept=float(len(fitted)))

    monkeypatch.setattr(local_adaptation, "fit_local_point", record)
    after = cross_fit(before, difference, REFERENCE, SMOOTHED, 0.1)
    assert after.margin is not None
    fold = np.rint(after.margin - difference).astype(int)  # the intercept is the number of the fit
    assert set(fold) == set(range(1, FOLDS + 1))
    assert all(patient not in fitted[number - 1] for patient, number in zip(before.patients, fold, strict=True))
    assert all(len(patients) > 50 for patients in fitted)


def test_changing_an_image_does_not_change_the_prediction_of_the_same_patients_other_image() -> None:
    difference, before = sample(120)
    changed = difference.copy()
    changed[0] += 4.0
    first, second = (cross_fit(before, each, REFERENCE, SMOOTHED, 0.1) for each in (difference, changed))
    assert first.probability[1, 1] == second.probability[1, 1]  # image 1 is of the same patient
    assert (first.probability[2:, 1] != second.probability[2:, 1]).mean() > 0.8  # the fits of other folds change


def test_an_inverted_ranking_is_detected() -> None:
    difference, before = sample(100)
    assert not ranks_inversely(difference, before.positive)
    assert ranks_inversely(-difference, before.positive)
    assert ranks_inversely(np.zeros(100), before.positive)


def test_cross_fitted_predictions_keep_the_true_classes() -> None:
    difference, before = sample(120)
    after = cross_fit(before, difference, REFERENCE, SMOOTHED, 0.1)
    np.testing.assert_array_equal(after.label, before.label)
    assert after.clusters.tolist() == replace(before).clusters.tolist()
