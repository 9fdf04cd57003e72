import json
from typing import Any

import pytest

from pneumo.models.adaptation_record import (
    AdaptationError,
    describe_adaptation,
    format_adaptation,
    is_adaptation,
    parse_adaptation,
)

POINT = {"temperature": 1.5, "intercept": -0.5, "threshold": 0.25, "margin": None}
RECORD: dict[str, Any] = {
    "data": "hospital",
    "date": "2026-01-02",
    "pneumo_version": "1.0",
    "images": 1200,
    "patients": 80,
    "positives": 40,
    "rule": "smoothed",
    "target": None,
    "folds": 10,
    "before": {**POINT, "intercept": 0.0},
    "after": POINT,
    "metrics": {"before": {"auroc": [0.8, 0.7, 0.9]}, "after": {"auroc": None}, "change": {}},
}


def test_a_record_survives_json_and_is_described() -> None:
    assert parse_adaptation(format_adaptation(RECORD)) == RECORD
    text = describe_adaptation(RECORD)
    for part in ("1,200 images", "80 patients", "hospital", "2026-01-02", "threshold is 0.250:"):
        assert part in text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data", ""),
        ("data", "a\nb"),
        ("data", 5),
        ("images", -1),
        ("images", True),
        ("images", 1.5),
        ("target", "0.9"),
        ("target", float("nan")),
        ("before", None),
        ("after", {**POINT, "threshold": 2}),
        ("after", {**POINT, "extra": 1}),
        ("after", {"temperature": 1.0}),
        ("metrics", {}),
        ("metrics", {"before": {}, "after": {}, "change": {"auroc": [1, 2]}}),
        ("metrics", {"before": {}, "after": {}, "change": {"auroc": [1, 2, float("inf")]}}),
        ("metrics", {"before": {}, "after": {}, "change": {str(i): None for i in range(1000)}}),
        ("other", 1),
    ],
)
def test_invalid_records_are_rejected(key: str, value: object) -> None:
    assert is_adaptation(RECORD)
    assert not is_adaptation({**RECORD, key: value})


@pytest.mark.parametrize("key", RECORD)
def test_incomplete_records_are_rejected(key: str) -> None:
    incomplete = {name: value for name, value in RECORD.items() if name != key}
    assert not is_adaptation(incomplete)
    with pytest.raises(AdaptationError):
        parse_adaptation(json.dumps(incomplete))


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"a": NaN}'])
def test_other_texts_are_rejected(text: str) -> None:
    with pytest.raises(AdaptationError):
        parse_adaptation(text)
