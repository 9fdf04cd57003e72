"""Record of a local adaptation, which checkpoints store as `adaptation` and exported networks in their metadata.

It contains plain types only, and nothing about single images or patients.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pneumo.common.plain_data import PlainDataError, parse_json
from pneumo.common.text import format_probability
from pneumo.models.hyperparameters import HyperparameterError, check_hyperparameters

_MAX_TEXT = 500  # characters of a name
_MAX_METRICS = 100
_POINT = ("temperature", "intercept", "threshold", "margin")
_PARTS = ("before", "after", "change")  # of the metrics


class AdaptationError(Exception):
    """An invalid record; the text is a clause with the reason."""


def shorten_name(name: str) -> str:
    """Shorten the name of a set to the length that records can have."""
    return name if len(name) <= _MAX_TEXT else f"{name[: _MAX_TEXT - 1]}…"


def is_adaptation(value: object) -> bool:
    """Return whether a value is a valid record.

    Its keys are:

    - `data`, `date`, `pneumo_version`: name of the set of images, ISO date, version;
    - `images`, `patients`, `positives`: numbers of the images used;
    - `rule`, `target`, `folds`: of the threshold and of the cross-fitting; the target is None for rules without one;
    - `before`, `after`: operating points, with temperature, intercept, threshold and margin;
    - `metrics`: the parts `before`, `after` and `change`, each with a list by metric name. The list has the value and
      the lower and upper end of its 95 % interval; it is None if the images determine no value.
    """
    return (
        isinstance(value, dict)
        and value.keys() == _RULES.keys()
        and all(is_valid(value[name]) for name, is_valid in _RULES.items())
    )


def format_adaptation(record: dict[str, Any]) -> str:
    """Format a record as JSON."""
    return json.dumps(record, allow_nan=False)


def parse_adaptation(text: str) -> dict[str, Any]:
    """Parse the output of `format_adaptation`.

    Raises:
        AdaptationError: The text is not JSON or not a valid record.
    """
    try:
        value = parse_json(text)
    except PlainDataError as error:
        raise AdaptationError(str(error)) from None
    if not is_adaptation(value):
        raise AdaptationError("it is not the record of an adaptation")
    return dict(value)


def describe_adaptation(record: dict[str, Any]) -> str:
    """Return a paragraph on an adapted network, with its threshold."""
    threshold = format_probability(record["after"]["threshold"])
    return (
        f"Adapted to {record['images']:,} images of {record['patients']:,} patients ({record['data']}, "
        f"{record['date']}): its probabilities are those of that site. Its threshold is {threshold}: images with a "
        "higher probability are predicted positive."
    )


def _text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_TEXT and value.isprintable()


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _optional_number(value: object) -> bool:
    return value is None or _number(value)


def _point(value: object) -> bool:
    if not isinstance(value, dict) or value.keys() != {*_POINT}:
        return False
    try:
        check_hyperparameters(value)
    except HyperparameterError:
        return False
    return True


def _metrics(value: object) -> bool:
    return isinstance(value, dict) and value.keys() == {*_PARTS} and all(map(_estimates, value.values()))


def _estimates(value: object) -> bool:
    return (
        isinstance(value, dict)
        and len(value) <= _MAX_METRICS
        and all(_text(name) and (each is None or _estimate(each)) for name, each in value.items())
    )


def _estimate(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_number, value))


_RULES: dict[str, Callable[[object], bool]] = {
    **dict.fromkeys(("data", "date", "pneumo_version", "rule"), _text),
    **dict.fromkeys(("images", "patients", "positives", "folds"), _count),
    "target": _optional_number,
    "before": _point,
    "after": _point,
    "metrics": _metrics,
}
