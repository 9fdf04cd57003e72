from dataclasses import asdict

import pytest

from pneumo.models.hyperparameters import (
    HyperparameterError,
    PredictionOptions,
    check_hyperparameters,
    is_ensemble_name,
    name_ensemble,
)


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


def test_an_ensemble_is_named_by_its_architectures() -> None:
    assert name_ensemble(["timm/a", "timm/b", "timm/a"]) == "ensemble of 3: timm/a (2), timm/b (1)"
    for architectures in (["timm/a"] * 2, ["timm/a", "pneumo/b"], [f"torchvision/{i}" for i in range(100)]):
        assert is_ensemble_name(name_ensemble(architectures))
    with pytest.raises(HyperparameterError, match="architecture"):
        check_hyperparameters({"architecture": name_ensemble(["timm/a"] * 2)})


@pytest.mark.parametrize(
    "value",
    [
        *("ensemble of 1: timm/a (1)", "ensemble of 3: timm/a (2)", "ensemble of 101: timm/a (101)"),
        *(
            "ensemble of 02: timm/a (2)",
            "ensemble of 2: timm/a (1), timm/a (1)",
            "ensemble of 2: timm/a (2), timm/b (0)",
        ),
        *(
            "ensemble of 2: hub/a (2)",
            "ensemble of 2: timm/a (2)\n",
            "ensemble of 2: timm/a (2) x",
            "timm/a",
            "",
            None,
            2,
        ),
        f"ensemble of 2: timm/a ({'9' * 5000})",
    ],
)
def test_other_names_of_ensembles_are_rejected(value: object) -> None:
    assert not is_ensemble_name(value)
