from dataclasses import asdict

import pytest

from pneumo.models.hyperparameters import HyperparameterError, PredictionOptions, check_hyperparameters


def test_an_intercept_of_zero_is_not_stored() -> None:
    assert PredictionOptions(0.4, 2.0, 0.3, True).hyperparameters() == {
        "threshold": 0.4,
        "temperature": 2.0,
        "margin": 0.3,
        "flip_test": True,
    }
    adapted = PredictionOptions(intercept=-0.5)
    assert adapted.hyperparameters() == asdict(adapted)


def test_intercepts_are_accepted_for_two_classes_only() -> None:
    assert check_hyperparameters({"classes": ["A", "B"], "intercept": 0.5})["intercept"] == 0.5
    assert check_hyperparameters({"classes": ["A", "B", "C"], "intercept": 0.0})["intercept"] == 0.0
    with pytest.raises(HyperparameterError, match=r"intercept is 0\.5"):
        check_hyperparameters({"classes": ["A", "B", "C"], "intercept": 0.5})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e4, -1e4, "0", True, None])
def test_invalid_intercepts_are_rejected(value: object) -> None:
    with pytest.raises(HyperparameterError, match="intercept"):
        check_hyperparameters({"intercept": value})
