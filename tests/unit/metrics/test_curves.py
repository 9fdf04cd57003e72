import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from pneumo.metrics.curves import GRID, measure_curves, precision_recall, roc
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.summary import summarise


def draw(size: int, distance: float = 2, levels: int = 10**6, fraction: float = 0.4) -> Predictions:
    generator = np.random.default_rng(size)
    positive = np.arange(size) < max(1, round(fraction * size))
    scores = np.round(expit(generator.normal(distance * (positive - 0.5), 1)) * levels) / levels
    return Predictions.binary(scores.astype(np.float32).astype(float), positive, scores > 0.5)


def reference_curves(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Compute both curves at GRID with scikit-learn."""
    false, true, _ = roc_curve(predictions.positive, predictions.score, drop_intermediate=False)
    precision, recall, _ = precision_recall_curve(predictions.positive, predictions.score)
    reached = [precision[np.flatnonzero(recall >= level - 1e-9)[-1]] for level in np.maximum(GRID, 1e-6)]
    return np.interp(GRID, false, true), np.array(reached)


@pytest.mark.parametrize(("size", "levels"), [(4, 10), (40, 5), (300, 20), (624, 10**6)])
@pytest.mark.parametrize("fraction", [0.1, 0.6])
def test_bands_contain_the_curves(size: int, levels: int, fraction: float) -> None:
    predictions = draw(size, levels=levels, fraction=fraction)
    curves = measure_curves(predictions)
    for band, curve in zip((curves.sensitivity, curves.precision), reference_curves(predictions), strict=True):
        assert np.all(band.low <= curve + 1e-9)
        assert np.all(curve <= band.high + 1e-9)
    assert curves.auroc.value == pytest.approx(roc_auc_score(predictions.positive, predictions.score))
    assert curves.auprc.value == pytest.approx(average_precision_score(predictions.positive, predictions.score))
    assert curves.auroc.low <= curves.auroc.value <= curves.auroc.high
    assert curves.auprc.low <= curves.auprc.value <= curves.auprc.high


def test_area_under_precision_recall_curve_is_average_precision() -> None:
    predictions = draw(200, levels=30)
    recall, precision = precision_recall(predictions)
    area = np.sum(np.diff(recall) * precision[1:])
    assert area == pytest.approx(average_precision_score(predictions.positive, predictions.score))
    assert (recall[0], recall[-1]) == (0, 1)


@pytest.mark.parametrize("single", [True, False])
def test_areas_of_a_single_patient_in_a_class_have_the_whole_range(single: bool) -> None:
    predictions = draw(40)
    label = ((np.arange(40) < 3) == single).astype(int)
    alone = replace(predictions, label=label, patients=("A",) * 3 + tuple(map(str, range(37))))
    curves = measure_curves(alone)
    assert curves.auroc[1:] == curves.auprc[1:] == (0, 1)
    more = measure_curves(replace(alone, patients=()))
    assert more.auprc.high - more.auprc.low < 1


def test_bands_are_narrower_for_more_images() -> None:
    few, many = (measure_curves(draw(size)) for size in (100, 1600))
    for name in ("sensitivity", "precision"):
        widths = [np.mean(np.subtract(band.high, band.low)) for band in (getattr(few, name), getattr(many, name))]
        assert widths[1] < 0.4 * widths[0]  # about a quarter


def test_curves_depend_on_the_order_of_probabilities_only() -> None:
    predictions = draw(100)
    curves, transformed = (
        measure_curves(predictions),
        measure_curves(replace(predictions, probability=predictions.probability**3)),
    )
    np.testing.assert_array_equal(curves.sensitivity, transformed.sensitivity)
    np.testing.assert_array_equal(curves.precision, transformed.precision)


def test_global_random_states_are_unchanged() -> None:
    before = torch.get_rng_state(), str(np.random.get_state(legacy=False)), random.getstate()
    first, second = measure_curves(draw(50)), measure_curves(draw(50))
    np.testing.assert_array_equal(first.sensitivity, second.sensitivity)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (str(np.random.get_state(legacy=False)), random.getstate()) == before[1:]


def test_saturated_probabilities_are_ranked_by_margin() -> None:
    generator = np.random.default_rng(0)
    positive = np.arange(200) % 3 > 0
    margin = 40 + generator.normal(3 * positive, 2)
    predictions = Predictions.binary(np.ones(200), positive, np.ones(200, bool), margin=margin)
    # The same ranks without saturation.
    plain = Predictions.binary(margin / 100, positive, np.ones(200, bool))
    expected = roc_auc_score(positive, margin)
    curves, other = measure_curves(predictions), measure_curves(plain)
    assert curves.auroc.value == pytest.approx(expected)
    assert curves.auroc == other.auroc
    assert curves.auprc.value == pytest.approx(average_precision_score(positive, margin))
    np.testing.assert_array_equal(curves.sensitivity.low, other.sensitivity.low)
    np.testing.assert_array_equal(precision_recall(predictions)[1], precision_recall(plain)[1])
    np.testing.assert_array_equal(roc(predictions), roc(plain))
    assert summarise(predictions)["test_auroc_ci_low"] == pytest.approx(curves.auroc.low)
    assert summarise(replace(predictions, odds=None))["test_auroc_ci_high"] < expected
