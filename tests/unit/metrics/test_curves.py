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


def answers(size: int, distance: float = 2, levels: int = 10**6, share: float = 0.4) -> Predictions:
    generator = np.random.default_rng(size)
    positive = np.arange(size) < max(1, round(share * size))
    scores = np.round(expit(generator.normal(distance * (positive - 0.5), 1)) * levels) / levels
    return Predictions.binary(scores.astype(np.float32).astype(float), positive, scores > 0.5)


def curves(given: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Give both curves at GRID, as scikit-learn finds them."""
    false, true, _ = roc_curve(given.positive, given.score, drop_intermediate=False)
    precision, recall, _ = precision_recall_curve(given.positive, given.score)
    reached = [precision[np.flatnonzero(recall >= wanted - 1e-9)[-1]] for wanted in np.maximum(GRID, 1e-6)]
    return np.interp(GRID, false, true), np.array(reached)


@pytest.mark.parametrize(("size", "levels"), [(4, 10), (40, 5), (300, 20), (624, 10**6)])
@pytest.mark.parametrize("share", [0.1, 0.6])
def test_bands_hold_the_curves(size: int, levels: int, share: float) -> None:
    given = answers(size, levels=levels, share=share)
    found = measure_curves(given)
    for band, curve in zip((found.sensitivity, found.precision), curves(given), strict=True):
        assert np.all(band.low <= curve + 1e-9)
        assert np.all(curve <= band.high + 1e-9)
    assert found.auroc.value == pytest.approx(roc_auc_score(given.positive, given.score))
    assert found.auprc.value == pytest.approx(average_precision_score(given.positive, given.score))
    assert found.auroc.low <= found.auroc.value <= found.auroc.high
    assert found.auprc.low <= found.auprc.value <= found.auprc.high


def test_the_precision_recall_curve_encloses_the_average_precision() -> None:
    given = answers(200, levels=30)
    recall, precision = precision_recall(given)
    area = np.sum(np.diff(recall) * precision[1:])
    assert area == pytest.approx(average_precision_score(given.positive, given.score))
    assert (recall[0], recall[-1]) == (0, 1)


@pytest.mark.parametrize("single", [True, False])
def test_a_single_patient_of_a_class_leaves_areas_unknown(single: bool) -> None:
    given = answers(40)
    label = ((np.arange(40) < 3) == single).astype(int)
    alone = replace(given, label=label, patients=("A",) * 3 + tuple(map(str, range(37))))
    found = measure_curves(alone)
    assert found.auroc[1:] == found.auprc[1:] == (0, 1)
    more = measure_curves(replace(alone, patients=()))
    assert more.auprc.high - more.auprc.low < 1


def test_more_images_make_narrower_bands() -> None:
    few, many = (measure_curves(answers(size)) for size in (100, 1600))
    for name in ("sensitivity", "precision"):
        widths = [np.mean(np.subtract(band.high, band.low)) for band in (getattr(few, name), getattr(many, name))]
        assert widths[1] < 0.4 * widths[0]  # a quarter, nearly


def test_only_the_order_of_probabilities_counts() -> None:
    given = answers(100)
    found, bent = measure_curves(given), measure_curves(replace(given, probability=given.probability**3))
    np.testing.assert_array_equal(found.sensitivity, bent.sensitivity)
    np.testing.assert_array_equal(found.precision, bent.precision)


def test_no_global_stream_of_random_numbers_is_drawn_from() -> None:
    before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].tolist(), random.getstate()
    first, second = measure_curves(answers(50)), measure_curves(answers(50))
    np.testing.assert_array_equal(first.sensitivity, second.sensitivity)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state(legacy=False)["state"]["key"].tolist(), random.getstate()) == before[1:]


def test_saturated_images_rank_by_their_margin_in_curves_intervals_and_tests() -> None:
    generator = np.random.default_rng(0)
    positive = np.arange(200) % 3 > 0
    margin = 40 + generator.normal(3 * positive, 2)
    given = Predictions.binary(np.ones(200), positive, np.ones(200, bool), margin=margin)
    plain = Predictions.binary(
        margin / 100, positive, np.ones(200, bool)
    )  # the same ranks in numbers that do not saturate
    expected = roc_auc_score(positive, margin)
    found, other = measure_curves(given), measure_curves(plain)
    assert found.auroc.value == pytest.approx(expected)
    assert found.auroc == other.auroc
    assert found.auprc.value == pytest.approx(average_precision_score(positive, margin))
    np.testing.assert_array_equal(found.sensitivity.low, other.sensitivity.low)
    np.testing.assert_array_equal(precision_recall(given)[1], precision_recall(plain)[1])
    np.testing.assert_array_equal(roc(given), roc(plain))
    assert summarise(given)["test_auroc_ci_low"] == pytest.approx(found.auroc.low)
    assert summarise(replace(given, odds=None))["test_auroc_ci_high"] < expected
