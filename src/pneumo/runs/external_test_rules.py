"""Rules of the JSON files in external/: keys, types and ranges of values."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from pneumo.common.plain_data import PlainDataError
from pneumo.config.constraints import is_integer, is_number
from pneumo.metrics.definitions import METRICS

SCHEMA = 1
METRIC_NAMES = ("auroc", "balanced_accuracy", "sensitivity", "specificity", "accuracy")
_MAX_CLASSES = 10_000
_MAX_CHARACTERS = 500
_TOLERANCE = 1e-5  # float32 rounding
_HASH = re.compile("[0-9a-f]{64}")


def metric_keys(name: str) -> tuple[str, str, str]:
    """Return the keys of a metric and of the ends of its confidence interval."""
    return name, f"{name}_ci_low", f"{name}_ci_high"


def check_content(content: object) -> dict[str, Any]:
    """Return the content of a JSON file; raise a PlainDataError unless all required values are valid.

    Keys of later versions are ignored.
    """
    if not isinstance(content, dict):
        raise PlainDataError("it is not a mapping")
    for name, is_valid in _RULES.items():
        if name not in content:
            raise PlainDataError(f"it has no {name}")
        if not is_valid(content[name]):
            raise PlainDataError(f"its {name} is invalid")
    for name in METRIC_NAMES:
        values = [content.get(key) for key in metric_keys(name)]
        low, high = METRICS[name].whole_range(len(content["classes"]))
        if values != [None] * 3 and not all(_is_between(value, low, high) for value in values):
            raise PlainDataError(f"its {name} and its interval are not numbers from {low:g} to {high:g}")
    return content


def _is_between(value: object, low: float, high: float) -> bool:
    return is_number(value) and low - _TOLERANCE <= float(str(value)) <= high + _TOLERANCE


def _is_line(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _MAX_CHARACTERS and value.isprintable()


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and is_integer(value) and value >= 1


def _are_classes(value: object) -> bool:
    return (
        isinstance(value, list)
        and 2 <= len(value) <= _MAX_CLASSES
        and all(isinstance(name, str) and name for name in value)
        and len(set(value)) == len(value)
    )


_RULES: dict[str, Callable[[object], bool]] = {
    "schema": _is_count,
    "name": lambda value: _is_line(value) and value != "",
    **dict.fromkeys(("split", "date"), _is_line),
    "classes": _are_classes,
    **dict.fromkeys(("images", "patients"), _is_count),
    "threshold": lambda value: value is None or _is_between(value, 0, 1),
    **dict.fromkeys(("checkpoint_sha256", "run_predictions_sha256", "csv_sha256"), _is_hash),
}
