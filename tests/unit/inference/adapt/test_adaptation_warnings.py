from typing import Any

import pytest

from pneumo.inference.adapt.adaptation_warnings import list_warnings


def make_record(**changed: Any) -> dict[str, Any]:  # noqa: ANN401 (of several types)
    record = {"data": "hospital", "images": 100, "rule": "smoothed", "target": None}
    before = {"auroc": [0.8, 0.7, 0.9], "sensitivity": [0.882, 0.7, 0.95], "specificity": [0.4, 0.3, 0.5]}
    after = {"auroc": [0.8, 0.7, 0.9], "sensitivity": [0.8, 0.6, 0.9], "specificity": [0.7, 0.6, 0.8]}
    change = {"balanced_accuracy": [0.109, 0.02, 0.2]}
    metrics = {"before": before, "after": after, "change": change}
    for part, values in metrics.items():
        values |= changed.pop(part, {})
    return {**record, "metrics": metrics, **changed}


def test_a_reliable_adaptation_has_no_warnings() -> None:
    assert list_warnings(make_record(), 0) == []


@pytest.mark.parametrize(
    ("changed", "unknown", "stated"),
    [
        ({"images": 99}, 0, ["99 images", "below 100", "too short", "EXTERNAL.md"]),
        ({}, 7, ["patient of 7 of 100 images", "column patient"]),
        ({"before": {"auroc": [0.6, 0.499, 0.7]}}, 0, ["hospital", "0.499 to 0.700", "no better than chance"]),
        (
            {"change": {"balanced_accuracy": [0.106, -0.019, 0.228]}},
            0,
            ["+0.106 (-0.019 to +0.228)", "not significant", "contains 0"],
        ),
        ({"change": {"balanced_accuracy": [-0.2, -0.3, -0.1]}}, 0, ["lower", "-0.200 (-0.300 to -0.100)", "--rule"]),
        (
            {"after": {"sensitivity": [0.441, 0.3, 0.6]}},
            0,
            ["sensitivity drops from 0.882 to 0.441", "--rule sensitivity --target 0.95"],
        ),
        (
            {"after": {"specificity": [0.2, 0.1, 0.3]}, "rule": "sensitivity", "target": 0.9},
            0,
            ["specificity drops from 0.400 to 0.200", "--rule specificity --target 0.95"],
        ),
        (
            {"after": {"sensitivity": [0.7, 0.5, 0.8]}, "rule": "sensitivity", "target": 0.8},
            0,
            ["sensitivity drops from 0.882 to 0.700", "--rule sensitivity --target 0.8", "higher --target"],
        ),
    ],
)
def test_each_reason_is_one_warning_with_values(changed: dict[str, Any], unknown: int, stated: list[str]) -> None:
    (warning,) = list_warnings(make_record(**changed), unknown)
    for text in stated:
        assert text in warning
