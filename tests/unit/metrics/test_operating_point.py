import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from pneumo.metrics.operating_point import choose_operating_point, choose_threshold, fit_temperature
from pneumo.metrics.predictions import distance

Margins = tuple[np.ndarray, np.ndarray]


def draw_margins(seed: int, count: int = 200, separation: float = 2.0) -> Margins:
    random = np.random.default_rng(seed)
    positive = np.arange(count) % 3 > 0
    return random.normal(0, 1, count) + separation * positive, positive


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_of_drawn_labels_is_recovered(temperature: float) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, (20_000, 3))
    probability = softmax(logits / temperature, axis=1)
    label = (random.random((20_000, 1)) > probability.cumsum(1)).sum(1)
    assert fit_temperature(logits, label) == pytest.approx(temperature, rel=0.03)


def draw_calibrated(seed: int, count: int, separation: float) -> Margins:
    """Draw calibrated logits, with classes `separation` standard deviations apart, and labels."""
    random = np.random.default_rng(seed)
    label = (np.arange(count) % 4 > 0).astype(np.int64)
    margin = separation * (random.normal(0, 1, count) + separation * (label - 0.5)) + np.log(3)
    return np.stack([-margin / 2, margin / 2], 1), label


@pytest.mark.parametrize("separation", [1.81, 2.90, 5.01])  # AUROC 0.9, 0.98, 0.9998
@pytest.mark.parametrize(("temperature", "bias"), [(0.5, 0.25), (1.0, 0.1), (2.0, 0.25)])
def test_temperature_is_nearly_unbiased_for_any_auroc(separation: float, temperature: float, bias: float) -> None:
    errors = []
    for seed in range(20):
        logits, label = draw_calibrated(seed, 520, separation)
        errors.append(np.log(fit_temperature(logits * temperature, label) / temperature))
    assert abs(np.median(errors)) < bias  # Platt's label smoothing: 0.60 for each temperature at AUROC 0.9998


@settings(max_examples=20, deadline=None)
@given(count=st.integers(2, 300), classes=st.integers(2, 4), scale=st.floats(1.0, 1e6))
def test_temperature_is_bounded_for_separable_images(count: int, classes: int, scale: float) -> None:
    label = np.arange(count) % classes
    temperature = fit_temperature(scale * np.eye(classes)[label], label)
    assert 0.1 < temperature <= 20
    assert fit_temperature(2 * scale * np.eye(classes)[label], label) > temperature - 1e-4


def test_equal_logits_have_temperature_1() -> None:
    assert fit_temperature(np.full((4, 2), 3.0), np.array([0, 1, 1, 1])) == 1


def test_temperature_of_few_separable_images_stays_near_1() -> None:
    for seed in range(20):
        logits, label = draw_calibrated(seed, 16, 5.01)
        assert 0.7 < fit_temperature(logits, label) < 2


def test_temperature_is_invariant_to_shifts_and_class_order() -> None:
    logits, label = draw_calibrated(0, 100, 2)
    shift = np.random.default_rng(0).normal(0, 5, (100, 1))
    assert fit_temperature(logits + shift, label) == pytest.approx(fit_temperature(logits, label), rel=1e-4)
    assert fit_temperature(logits[:, ::-1], 1 - label) == pytest.approx(fit_temperature(logits, label), rel=1e-4)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), sensitivity=st.floats(0.5, 1.0), digits=st.integers(0, 6))
def test_required_sensitivity_is_reached_by_the_highest_threshold(seed: int, sensitivity: float, digits: int) -> None:
    margin, positive = draw_margins(seed)
    margin = margin.round(digits)  # ties
    threshold = choose_threshold(margin, positive, "sensitivity", sensitivity)
    assert (margin[positive] > threshold).mean() >= sensitivity
    higher = margin[positive][margin[positive] > threshold].min()
    assert (margin[positive] > higher).mean() < sensitivity


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), digits=st.integers(0, 6), rule=st.sampled_from(["youden", "accuracy"]))
def test_selected_threshold_is_optimal(seed: int, digits: int, rule: str) -> None:
    margin, positive = draw_margins(seed, 60, 1.0)
    margin = margin.round(digits)

    def score(threshold: float) -> float:
        predicted = margin > threshold
        if rule == "accuracy":
            return float((predicted == positive).mean())
        return float(predicted[positive].mean() - predicted[~positive].mean())

    best = max(score(threshold) for threshold in [margin.min() - 1, *margin])
    assert score(choose_threshold(margin, positive, rule, 0.95)) == pytest.approx(best)


@pytest.mark.parametrize("rule", ["youden", "accuracy"])
def test_threshold_of_separable_classes_is_the_middle_of_the_gap(rule: str) -> None:
    margin, positive = np.array([-3.0, -2.0, 4.0, 5.0, 6.0]), np.array([False, False, True, True, True])
    assert choose_threshold(margin, positive, rule, 0.95) == 1.0


def test_threshold_applies_to_calibrated_probabilities() -> None:
    margin, positive = draw_margins(1)
    logits, label = np.stack([-margin, margin], 1), positive.astype(np.int64)
    point = choose_operating_point(logits, label, True, "sensitivity", 0.9, 0.5, 0.1)
    probability = softmax(logits / point.temperature, axis=1)[:, 1].astype(np.float32)
    assert point.temperature != 1
    assert 0.9 <= (probability[positive] > point.threshold).mean() < 0.92
    assert choose_operating_point(logits, label, False, "fixed", 0.9, 0.3, 0.1)[:2] == (1.0, 0.3)
    three = np.concatenate([logits, logits[:, :1]], 1)
    assert choose_operating_point(three, label, False, "youden", 0.9, 0.5, 0.1)[:2] == (1.0, 0.5)


@pytest.mark.parametrize("rule", ["youden", "accuracy", "sensitivity"])
@pytest.mark.parametrize("middle", [0.0, 10.0, 16.5, 40.0])
def test_threshold_separates_saturated_probabilities(rule: str, middle: float) -> None:
    random = np.random.default_rng(0)
    positive = np.arange(300) % 2 == 1
    margin = np.where(positive, random.normal(middle, 0.5, 300), random.normal(-6, 1, 300)).astype(np.float32)
    logits = np.stack([-margin / 2, margin / 2], 1)
    point = choose_operating_point(logits.astype(np.float64), positive.astype(np.int64), False, rule, 0.95, 0.5, 0.1)
    probability = torch.softmax(torch.from_numpy(logits), 1)[:, 1].numpy()
    assert (probability[positive] > point.threshold).mean() >= 0.95
    assert (probability[~positive] <= point.threshold).all()


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("rule", ["youden", "accuracy", "sensitivity"])
def test_threshold_is_kept_for_a_single_class(rule: str, label: int, caplog: pytest.LogCaptureFixture) -> None:
    point = choose_operating_point(np.zeros((5, 2)), np.full(5, label), False, rule, 0.95, 0.4, 0.1)
    assert (point.temperature, point.threshold) == (1.0, 0.4)
    assert point.margin == pytest.approx(np.log(0.6 / 0.4))
    assert "0.4 is kept" in caplog.text


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("fraction", [0.0, 0.1, 1.0])
def test_margin_contains_the_required_fraction_of_validation_images(classes: int, fraction: float) -> None:
    logits, label = np.random.default_rng(0).normal(0, 2, (301, classes)), np.arange(301) % classes
    point = choose_operating_point(logits, label, False, "fixed", 0.95, 0.3, fraction)
    probability = torch.softmax(torch.from_numpy(logits).float(), 1).numpy()
    distances = distance(probability, 0.3)
    assert (distances <= point.margin).sum() == np.ceil(fraction * 301)
    nearest = probability[distances.argmin()]
    if classes == 2:
        assert abs(nearest[1] - 0.3) == abs(probability[:, 1] - 0.3).min()


def test_distance_is_in_logits_and_always_finite() -> None:
    assert distance(np.array([[0.5, 0.5], [0.7, 0.3], [0.7, 0.3]]), 0.3) == pytest.approx([np.log(7 / 3), 0, 0])
    ends = distance(np.array([[1.0, 0.0], [0.0, 1.0]], np.float32), 0.0)
    assert np.isfinite(ends).all()
    assert distance(np.array([[0.2, 0.6, 0.2]]), 0.5) == pytest.approx([np.log(3)])
