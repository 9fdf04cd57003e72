import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, log_loss, roc_auc_score

from pneumo.metrics.adaptation_effect import AUROC, TITLES, measure_effect
from pneumo.metrics.predictions import Predictions


def predictions(intercept: float) -> Predictions:
    generator = np.random.default_rng(0)
    margin = generator.normal(0, 2, 200)
    positive = generator.random(200) < expit(margin)
    probability = expit(margin + intercept)
    patients = tuple(str(i // 2) for i in range(200))
    paths = tuple(map(str, range(200)))
    return Predictions.binary(probability, positive, probability > 0.5, ("A", "B"), paths, margin + intercept, patients)


def test_values_and_changes_equal_those_of_scikit_learn() -> None:
    before, after = predictions(2.0), predictions(0.0)
    effect = measure_effect(before, after)
    assert effect.before.keys() == effect.after.keys() == TITLES.keys()
    for part, each in ((effect.before, before), (effect.after, after)):
        expected = {
            AUROC: roc_auc_score(each.label, each.score),
            "balanced_accuracy": balanced_accuracy_score(each.label, each.predicted),
            "brier": brier_score_loss(each.label, each.probability[:, 1]),
            "log_loss": log_loss(each.label, each.probability[:, 1]),
        }
        for name, value in expected.items():
            estimate = part[name]
            assert estimate is not None
            assert estimate.value == pytest.approx(value, abs=1e-9), name
            assert estimate.low < value < estimate.high, name
    for name in ("balanced_accuracy", "sensitivity", "specificity", "brier", "log_loss"):
        first, second, change = effect.after[name], effect.before[name], effect.change[name]
        assert first is not None
        assert second is not None
        assert change is not None
        assert change.value == pytest.approx(first.value - second.value, abs=1e-9), name
        assert change.low <= change.value <= change.high, name
    assert effect.change["log_loss"] is not None
    assert effect.change["log_loss"].high < 0  # the planted intercept is removed
    assert effect.change[AUROC] is None


def test_equal_predictions_have_no_change() -> None:
    effect = measure_effect(predictions(0.0), predictions(0.0))
    assert effect.before == effect.after
    assert all(each is None or each.value == 0 for each in effect.change.values())
