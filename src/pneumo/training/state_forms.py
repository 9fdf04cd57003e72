"""Forms of stored training state: structural comparison with the state that the present run would store."""

import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pneumo.common.tensor_files import is_dense

_SHOWN = 80  # characters of a value
_MISSING = Ellipsis  # of a key that is not there; no checkpoint of plain types holds it


class FormError(Exception):
    """Stored state is not what a run would have stored; the text names the key and the rule."""


@dataclass(frozen=True)
class Rule:
    """What a value must be where that is no fixed value.

    Attributes:
        words: Completes `must be`.
        holds: Whether a value, which may be anything, is so.
    """

    words: str
    holds: Callable[[Any], bool]


NUMBER = Rule("a finite number", lambda value: _is_number(value) and abs(value) <= sys.float_info.max)
TEXT = Rule("text", lambda value: isinstance(value, str))
ABSENT = Rule("absent from a training state", lambda value: value is _MISSING)
ANYTHING = Rule("there", lambda value: value is not _MISSING)
SCALAR = Rule("a tensor of one number", lambda value: isinstance(value, Tensor) and is_dense(value) and not value.ndim)
_SINGLE = Rule("a single value", lambda value: isinstance(value, str | int | float | None) or SCALAR.holds(value))


def between(least: float, most: float, whole: bool = False) -> Rule:
    """Return the rule of a finite number, which may have to be a whole one."""
    words = f"a {'whole ' if whole else ''}number from {least} to {most}"
    return Rule(words, lambda value: NUMBER.holds(value) and least <= value <= most and _is_number(value, whole))


def tensor_of(number: float) -> Rule:
    """Return the rule of a tensor of one number, equal but for rounding."""
    return Rule(f"a tensor of {number}", lambda value: SCALAR.holds(value) and _is_close(value.item(), number))


def form_of(value: object) -> Any:  # noqa: ANN401 (whatever `compare` expects)
    """Return what any value of the same keys, types and shapes is expected to be; None stands for any single value."""
    if isinstance(value, Mapping):
        return {key: form_of(item) for key, item in value.items()}
    if isinstance(value, Tensor):
        return value
    if value is None:
        return _SINGLE
    if _is_number(value):
        return Rule(NUMBER.words, lambda stored: NUMBER.holds(stored) or (_is_number(stored) and stored == value))
    return Rule(f"of type {type(value).__name__}", lambda stored: type(stored) is type(value))


def require(holds: bool, fault: str) -> None:
    """Raise a FormError with the fault unless a rule holds."""
    if not holds:
        raise FormError(fault)


def require_dict(value: object, name: str) -> dict[str, Any]:
    """Return a dictionary with text for keys, or raise a FormError."""
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return value
    raise FormError(f"{name} is no dictionary of names")


def compare(value: object, expected: object, name: str) -> None:
    """Raise a FormError unless a stored value is as expected.

    Args:
        value: Stored.
        expected: A `Rule` holds. A tensor stands for dense ones of its shape and kind with finite numbers. Mappings and
            lists have the same keys or length, and items as expected. All else is equal but for rounding.
        name: Of the value.
    """
    if isinstance(expected, Rule):
        require(expected.holds(value), f"{name}={show(value)} must be {expected.words}")
    elif isinstance(expected, Mapping):
        if not isinstance(value, dict):
            raise FormError(f"{name} is no dictionary")
        other = [show(key) for key in (*value, *expected) if key not in value or key not in expected]
        require(not other, f"{name} lacks, or has in addition, {', '.join(other[:3])}")
        compare_items(value, expected, f"{name}.")
    elif isinstance(expected, list | tuple):
        if not isinstance(value, list | tuple) or len(value) != len(expected):
            raise FormError(f"{name}={show(value)} must be a list of {len(expected)}")
        for stored, item in zip(value, expected, strict=True):
            compare(stored, item, name)
    elif isinstance(expected, Tensor):
        _compare_tensor(value, expected, name)
    elif not _is_close(value, expected):
        raise FormError(f"{name}={show(value)} must be {show(expected)}")


def compare_items(stored: Mapping[Any, Any], expected: Mapping[Any, object], prefix: str) -> None:
    """Raise a FormError unless the items of these keys are as `compare` expects; there may be others."""
    for key, item in expected.items():
        compare(stored.get(key, _MISSING), item, f"{prefix}{key}")


def show(value: object) -> str:
    """Return a value as a short text on one line."""
    text = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else str(value)[: 10 * _SHOWN]
    text = re.sub(r"\s+", " ", text)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _compare_tensor(value: object, form: Tensor, name: str) -> None:
    if not isinstance(value, Tensor) or not is_dense(value) or value.shape != form.shape:
        raise FormError(f"{name}={show(value)} must be a dense tensor of shape {tuple(form.shape)}")
    kind, expected = ((each.is_floating_point(), each.is_complex(), each.dtype is torch.bool) for each in (value, form))
    require(kind == expected, f"{name} is {value.dtype}")
    require(bool(torch.isfinite(value).all()), f"{name} has values that are not finite")


def _is_number(value: object, whole: bool = False) -> bool:
    return isinstance(value, int if whole else int | float) and not isinstance(value, bool)


def _is_close(value: Any, expected: object) -> bool:  # noqa: ANN401 (whatever a checkpoint holds)
    if isinstance(expected, bool | str | None):
        return type(value) is type(expected) and bool(value == expected)
    if isinstance(expected, int | float):
        close = NUMBER.holds(value) and math.isclose(value, expected, rel_tol=1e-6, abs_tol=1e-12)
        return close or (type(value) is float and value == expected)  # both may be infinite
    return value is not _MISSING  # an object, which no checkpoint of plain types can hold
