import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from pneumo.metrics.operating_point import choose_operating_point, choose_threshold, fit_temperature
from pneumo.metrics.predictions import distance

Margins = tuple[np.ndarray, np.ndarray]


def answers(seed: int, count: int = 200, apart: float = 2.0) -> Margins:
    random = np.random.default_rng(seed)
    positive = np.arange(count) % 3 > 0
    return random.normal(0, 1, count) + apart * positive, positive


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_labels_were_drawn_with_is_found(temperature: float) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, (20_000, 3))
    share = softmax(logits / temperature, axis=1)
    label = (random.random((20_000, 1)) > share.cumsum(1)).sum(1)
    assert fit_temperature(logits, label) == pytest.approx(temperature, rel=0.03)


def calibrated(seed: int, count: int, apart: float) -> Margins:
    """Draw logits of calibrated networks, whose classes lie `apart` standard deviations from each other, and labels."""
    random = np.random.default_rng(seed)
    label = (np.arange(count) % 4 > 0).astype(np.int64)
    margin = apart * (random.normal(0, 1, count) + apart * (label - 0.5)) + np.log(3)
    return np.stack([-margin / 2, margin / 2], 1), label


@pytest.mark.parametrize("apart", [1.81, 2.90, 5.01])  # an AUROC of 0.9, 0.98, 0.9998
@pytest.mark.parametrize(("temperature", "bias"), [(0.5, 0.25), (1.0, 0.1), (2.0, 0.25)])
def test_the_temperature_is_nearly_unbiased_for_networks_of_any_strength(
    apart: float, temperature: float, bias: float
) -> None:
    found = []
    for seed in range(20):
        logits, label = calibrated(seed, 520, apart)
        found.append(np.log(fit_temperature(logits * temperature, label) / temperature))
    assert abs(np.median(found)) < bias  # labels smoothed after Platt: 0.60 for each temperature at 0.9998


@settings(max_examples=20, deadline=None)
@given(count=st.integers(2, 300), classes=st.integers(2, 4), scale=st.floats(1.0, 1e6))
def test_separable_images_keep_the_temperature_bounded(count: int, classes: int, scale: float) -> None:
    label = np.arange(count) % classes
    temperature = fit_temperature(scale * np.eye(classes)[label], label)
    assert 0.1 < temperature <= 20
    assert fit_temperature(2 * scale * np.eye(classes)[label], label) > temperature - 1e-4


def test_equal_logits_have_the_temperature_1() -> None:
    assert fit_temperature(np.full((4, 2), 3.0), np.array([0, 1, 1, 1])) == 1


def test_a_few_separable_images_hardly_change_the_calibration() -> None:
    for seed in range(20):
        logits, label = calibrated(seed, 16, 5.01)
        assert 0.7 < fit_temperature(logits, label) < 2


def test_logits_shifted_together_have_the_same_temperature() -> None:
    logits, label = calibrated(0, 100, 2)
    shift = np.random.default_rng(0).normal(0, 5, (100, 1))
    assert fit_temperature(logits + shift, label) == pytest.approx(fit_temperature(logits, label), rel=1e-4)
    assert fit_temperature(logits[:, ::-1], 1 - label) == pytest.approx(fit_temperature(logits, label), rel=1e-4)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), wanted=st.floats(0.5, 1.0), digits=st.integers(0, 6))
def test_the_wanted_sensitivity_is_reached_and_hardly_passed(seed: int, wanted: float, digits: int) -> None:
    margin, positive = answers(seed)
    margin = margin.round(digits)  # ties
    threshold = choose_threshold(margin, positive, "sensitivity", wanted)
    assert (margin[positive] > threshold).mean() >= wanted
    higher = margin[positive][margin[positive] > threshold].min()
    assert (margin[positive] > higher).mean() < wanted


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), digits=st.integers(0, 6), rule=st.sampled_from(["youden", "accuracy"]))
def test_no_other_threshold_does_better(seed: int, digits: int, rule: str) -> None:
    margin, positive = answers(seed, 60, 1.0)
    margin = margin.round(digits)

    def score(threshold: float) -> float:
        called = margin > threshold
        if rule == "accuracy":
            return float((called == positive).mean())
        return float(called[positive].mean() - called[~positive].mean())

    best = max(score(threshold) for threshold in [margin.min() - 1, *margin])
    assert score(choose_threshold(margin, positive, rule, 0.95)) == pytest.approx(best)


@pytest.mark.parametrize("rule", ["youden", "accuracy"])
def test_between_classes_without_an_error_the_middle_is_taken(rule: str) -> None:
    margin, positive = np.array([-3.0, -2.0, 4.0, 5.0, 6.0]), np.array([False, False, True, True, True])
    assert choose_threshold(margin, positive, rule, 0.95) == 1.0


def test_a_decision_is_made_on_calibrated_probabilities_of_two_classes() -> None:
    margin, positive = answers(1)
    logits, label = np.stack([-margin, margin], 1), positive.astype(np.int64)
    found = choose_operating_point(logits, label, True, "sensitivity", 0.9, 0.5, 0.1)
    probability = softmax(logits / found.temperature, axis=1)[:, 1].astype(np.float32)
    assert found.temperature != 1
    assert 0.9 <= (probability[positive] > found.threshold).mean() < 0.92
    assert choose_operating_point(logits, label, False, "fixed", 0.9, 0.3, 0.1)[:2] == (1.0, 0.3)
    three = np.concatenate([logits, logits[:, :1]], 1)
    assert choose_operating_point(three, label, False, "youden", 0.9, 0.5, 0.1)[:2] == (1.0, 0.5)


@pytest.mark.parametrize("rule", ["youden", "accuracy", "sensitivity"])
@pytest.mark.parametrize("middle", [0.0, 10.0, 16.5, 40.0])
def test_a_threshold_can_be_passed_however_certain_the_answers_are(rule: str, middle: float) -> None:
    random = np.random.default_rng(0)
    positive = np.arange(300) % 2 == 1
    margin = np.where(positive, random.normal(middle, 0.5, 300), random.normal(-6, 1, 300)).astype(np.float32)
    logits = np.stack([-margin / 2, margin / 2], 1)
    found = choose_operating_point(logits.astype(np.float64), positive.astype(np.int64), False, rule, 0.95, 0.5, 0.1)
    probability = torch.softmax(torch.from_numpy(logits), 1)[:, 1].numpy()
    assert (probability[positive] > found.threshold).mean() >= 0.95
    assert (probability[~positive] <= found.threshold).all()


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("rule", ["youden", "accuracy", "sensitivity"])
def test_images_of_one_class_choose_no_threshold(rule: str, label: int, caplog: pytest.LogCaptureFixture) -> None:
    found = choose_operating_point(np.zeros((5, 2)), np.full(5, label), False, rule, 0.95, 0.4, 0.1)
    assert (found.temperature, found.threshold) == (1.0, 0.4)
    assert found.margin == pytest.approx(np.log(0.6 / 0.4))
    assert "0.4 stays" in caplog.text


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_the_margin_holds_the_wanted_share_of_the_validation_images(classes: int, share: float) -> None:
    logits, label = np.random.default_rng(0).normal(0, 2, (301, classes)), np.arange(301) % classes
    found = choose_operating_point(logits, label, False, "fixed", 0.95, 0.3, share)
    probability = torch.softmax(torch.from_numpy(logits).float(), 1).numpy()
    far = distance(probability, 0.3)
    assert (far <= found.margin).sum() == np.ceil(share * 301)
    nearest = probability[far.argmin()]
    if classes == 2:
        assert abs(nearest[1] - 0.3) == abs(probability[:, 1] - 0.3).min()


def test_the_distance_is_in_logits_and_finite_for_any_probability() -> None:
    assert distance(np.array([[0.5, 0.5], [0.7, 0.3], [0.7, 0.3]]), 0.3) == pytest.approx([np.log(7 / 3), 0, 0])
    ends = distance(np.array([[1.0, 0.0], [0.0, 1.0]], np.float32), 0.0)
    assert np.isfinite(ends).all()
    assert distance(np.array([[0.2, 0.6, 0.2]]), 0.5) == pytest.approx([np.log(3)])
