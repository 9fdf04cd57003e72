from dataclasses import replace

import dcurves
import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from pneumo.errors import ConfigError, DataError
from pneumo.metrics.decision_curve import decision_curve
from pneumo.metrics.predictions import Predictions


def draw(seed: int, images: int = 300) -> Predictions:
    generator = np.random.default_rng(seed)
    positive = generator.random(images) < 0.3
    margin = generator.normal(2 * positive - 1.5, 1.5)
    return Predictions.binary(expit(margin), positive, margin > 0, margin=margin)


@pytest.mark.parametrize("prevalence", [None, 0.1, 0.7])
def test_net_benefit_equals_dcurves(prevalence: float | None) -> None:
    predictions = draw(0)
    thresholds = np.array([0.05, 0.5, 0.2, 0.35, 0.8])  # in any order
    frame = pd.DataFrame({"outcome": predictions.positive.astype(int), "model": predictions.positive_probability})
    table = dcurves.dca(
        data=frame, outcome="outcome", modelnames=["model"], thresholds=sorted(thresholds), prevalence=prevalence
    )
    found = decision_curve(predictions, thresholds, prevalence)
    for name, curve in (("model", found.model), ("all", found.treat_all)):
        rows = table[table["model"] == name].set_index("threshold")["net_benefit"]
        assert curve == pytest.approx([rows[threshold] for threshold in thresholds], abs=1e-6)


def test_net_benefit_equals_the_calculation_by_hand() -> None:
    # At 0.25: three true positives and two false positives of ten images; at 0.5: two and one.
    probability = np.array([0.9, 0.6, 0.3, 0.1, 0.7, 0.4, 0.2, 0.1, 0.1, 0.1])
    positive = np.arange(10) < 4
    found = decision_curve(Predictions.binary(probability, positive, probability > 0.5), np.array([0.25, 0.5]))
    assert found.model == pytest.approx([0.3 - 0.2 / 3, 0.2 - 0.1])
    assert found.treat_all == pytest.approx([0.4 - 0.6 / 3, 0.4 - 0.6])


def test_images_at_the_threshold_are_not_treated() -> None:
    predictions = Predictions.binary(np.array([0.5, 0.5, 0.2]), np.array([True, True, False]), np.zeros(3) > 1)
    assert decision_curve(predictions, np.array([0.5])).model == pytest.approx([0])


def test_treating_everyone_is_the_curve_of_a_classifier_without_negative_predictions() -> None:
    predictions = replace(draw(1), probability=np.full((300, 2), [0.0, 1.0]))
    found = decision_curve(predictions)
    assert found.model == pytest.approx(found.treat_all)
    assert found.threshold == pytest.approx(np.arange(1, 100) / 100)


def test_band_contains_the_curve_and_widens_with_equal_images_of_a_patient() -> None:
    once = draw(2, 200)
    thrice = once.take(np.arange(200).repeat(3))
    patients = tuple(map(str, np.arange(200).repeat(3)))
    one, three, apart = (decision_curve(each) for each in (once, replace(thrice, patients=patients), thrice))
    assert three.model == pytest.approx(one.model)
    for found in (one, three):
        assert (found.low <= found.model + 1e-9).mean() > 0.95
        assert (found.high >= found.model - 1e-9).mean() > 0.95
    middle = slice(10, 50)
    width = (one.high - one.low)[middle].mean()
    assert (three.high - three.low)[middle].mean() == pytest.approx(width, rel=0.1)
    assert (apart.high - apart.low)[middle].mean() == pytest.approx(width / np.sqrt(3), rel=0.15)


def test_a_single_class_has_a_curve_but_no_stated_prevalence() -> None:
    predictions = draw(3).take(np.flatnonzero(~draw(3).positive))
    found = decision_curve(predictions, np.array([0.2]))
    assert found.model == pytest.approx([-(predictions.positive_probability > 0.2).mean() / 4])
    with pytest.raises(DataError, match="prevalence"):
        decision_curve(predictions, prevalence=0.1)


def test_values_outside_the_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="hreshold"):
        decision_curve(draw(0), np.array([0.5, 1.0]))
    for prevalence in (0.0, 1.0, float("nan")):
        with pytest.raises(ConfigError, match="prevalence"):
            decision_curve(draw(0), prevalence=prevalence)
