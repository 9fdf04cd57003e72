"""Confidence intervals of AUROC, average precision and Brier score for classes with few images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from pneumo.metrics.bootstrap import Resamples, bootstrap
from pneumo.metrics.clusters import auroc_widening, precision_interval
from pneumo.metrics.curves import measure_curves
from pneumo.metrics.definitions import auprc, estimates
from pneumo.metrics.intervals import mean_interval
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.significance import delong_interval, placements

Array = np.ndarray


def draw(generator: np.random.Generator, area: float, size: tuple[int, int]) -> tuple[Array, Array]:
    """Draw normally distributed scores of positive and negative images, and their classes."""
    positive = np.arange(sum(size)) < size[0]
    return generator.normal(np.sqrt(2) * norm.ppf(area) * positive, 1), positive


@pytest.mark.parametrize("area", [0.95, 0.98])
@pytest.mark.parametrize("size", [(10, 300), (300, 10), (20, 200)])
def test_auroc_interval_has_nominal_coverage_for_few_images(size: tuple[int, int], area: float) -> None:
    generator = np.random.default_rng(0)
    intervals = [delong_interval(placements(*draw(generator, area, size))) for _ in range(300)]
    assert 0.93 <= np.mean([low <= area <= high for low, high in intervals]) < 1


def test_average_precision_interval_has_nominal_coverage_for_few_negatives() -> None:
    generator, positive, covered = np.random.default_rng(0), np.arange(310) < 300, 0
    weights = bootstrap(lambda drawn: drawn, positive, 100)
    score, label = draw(generator, 0.95, (300_000, 10_000))
    truth = auprc(Resamples(Predictions.binary(score, label, label)))[0]
    for _ in range(150):
        score, _ = draw(generator, 0.95, (300, 10))
        resamples = Resamples(Predictions.binary(score, positive, positive), np.vstack([np.ones(310), weights]))
        value, *draws = auprc(resamples)
        low, high = precision_interval(value, np.std(draws, ddof=1), [placements(score, positive).residuals])
        covered += low <= truth <= high
    assert 0.93 <= covered / 150 < 1


def test_brier_score_interval_has_nominal_coverage_for_few_images() -> None:
    generator = np.random.default_rng(0)
    positive = np.arange(40) < 20
    scores = generator.normal(np.where(positive, norm.ppf(0.98), -norm.ppf(0.8)), 1, (20_000, 40))
    errors = (1 / (1 + np.exp(-2 * scores)) - positive) ** 2
    draws = errors[:400] @ bootstrap(lambda drawn: drawn, positive, 500).T / 40
    ends = [mean_interval(each.mean(), of_test, 40) for each, of_test in zip(errors, draws, strict=False)]
    assert 0.93 <= np.mean([low <= errors.mean() <= high for low, high in ends]) <= 0.98


@given(seed=st.integers(0, 2**32 - 1), size=st.tuples(st.integers(2, 30), st.integers(2, 30)))
def test_auroc_interval_is_symmetric_in_the_classes(seed: int, size: tuple[int, int]) -> None:
    score, positive = draw(np.random.default_rng(seed), 0.8, size)
    low, high = delong_interval(placements(score, positive))
    assert delong_interval(placements(-score, ~positive)) == pytest.approx((low, high))
    assert delong_interval(placements(-score, positive)) == pytest.approx((1 - high, 1 - low))


def test_shrinkage_vanishes_for_many_images() -> None:
    widening = [
        auroc_widening([placements(*draw(np.random.default_rng(0), 0.95, (count, count))).residuals])
        for count in (30, 30_000)
    ]
    assert abs(widening[1] - 1) < 1e-4 < abs(widening[0] - 1)


def test_curve_areas_of_a_single_positive_image_have_the_whole_range() -> None:
    curves = measure_curves(Predictions.binary(np.linspace(0, 1, 20), np.arange(20) == 17, np.arange(20) > 9))
    assert curves.auroc[1:] == curves.auprc[1:] == (0, 1)


def test_few_images_of_one_of_three_classes_widen_intervals() -> None:
    generator, widths = np.random.default_rng(0), []
    for count in (8, 300):
        label = np.repeat([0, 1, 2], [count, 300, 300])
        margin = generator.normal(3 * (label[:, None] == np.arange(3)), 1)
        probability = np.exp(margin) / np.exp(margin).sum(axis=1, keepdims=True)
        results = estimates(Predictions(probability, label, margin.argmax(axis=1)))
        widths.append([np.ptp(results[name][1:]) for name in ("auroc", "auprc")])
    assert (np.array(widths[0]) > 1.5 * np.array(widths[1])).all()
