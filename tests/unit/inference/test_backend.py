import json
from dataclasses import replace

import pytest

from pneumo.inference.backend import Rules
from pneumo.models.hyperparameters import HyperparameterError

RULES = Rules("timm/x", ("NORMAL", "PNEUMONIA"), 32, 1.0, 0.5, 0.3, True)
VALUES = json.loads(RULES.to_json())
_INVALID: dict[str, tuple[object, ...]] = {
    "threshold": (float("nan"), 5, -1, None, "0.5", True, []),
    "margin": (float("inf"), float("nan"), -1, "1", {}),
    "crop_pct": (0, 2, float("nan"), None, "1"),
    "image_size": (0, -32, 10**9, 32.5, "32", None, True),
    "classes": ([], ["A"], ["A", "A"], "AB", ["A", 1], ["A", "\x1b"], ["A", ""], None),
    "name": ("../x", "hub/x", "", None, 5, "timm/hf-hub:a/b", "ensemble of 2: hub/x (2)"),
    "aspect": ("stretch", None, 1, []),
    "histogram": ("", "EQUALIZE", None, True),
    "outliers": (1, None, "true", []),
}
INVALID = [(name, value) for name, values in _INVALID.items() for value in values]


def test_rules_survive_a_round_trip() -> None:
    assert Rules.from_json(RULES.to_json()) == RULES
    other = replace(RULES, aspect="pad", histogram="equalize")
    assert Rules.from_json(other.to_json()) == other
    assert other.input_format == (32, 1.0, "pad", "equalize")
    assert list(VALUES) == ["name", "classes", "image_size", "crop_pct", "threshold", "margin", "outliers"]


def test_the_name_of_an_ensemble_is_valid() -> None:
    name = "ensemble of 3: timm/x (2), pneumo/xraychestnet (1)"
    assert Rules.from_json(json.dumps({**VALUES, "name": name})).name == name


@pytest.mark.parametrize(("name", "value"), INVALID)
def test_an_error_names_the_invalid_rule(name: str, value: object) -> None:
    with pytest.raises(HyperparameterError, match="architecture" if name == "name" else name):
        Rules.from_json(json.dumps({**VALUES, name: value}))


@pytest.mark.parametrize("name", VALUES)
def test_a_missing_rule_is_an_error(name: str) -> None:
    rest = {key: value for key, value in VALUES.items() if key != name}
    with pytest.raises(HyperparameterError, match=name):
        Rules.from_json(json.dumps(rest))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "5", "[" * 100_000, " " * 2_000_000, '{"a": 1}'])
def test_invalid_json_is_an_error(text: str) -> None:
    with pytest.raises(HyperparameterError, match="its rules"):
        Rules.from_json(text)
    with pytest.raises(HyperparameterError, match="its rules"):
        Rules.from_json(json.dumps({**VALUES, "more": 1}))
