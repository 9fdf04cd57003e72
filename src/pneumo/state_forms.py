"""Forms of stored state: comparison with what the present run would store, without trusting any of it."""

import math
import re
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pneumo.tensors import is_dense

_SHOWN = 80  # characters of a value


class FormError(Exception):
    """Stored state is not what a run would have stored; the text names the key and the rule."""


def require(holds: bool, fault: str) -> None:
    """Raise a FormError with the fault unless a rule holds."""
    if not holds:
        raise FormError(fault)


def require_dict(value: object, name: str) -> dict[str, Any]:
    """Return a dictionary with text for keys, or raise a FormError."""
    require(isinstance(value, dict) and all(isinstance(key, str) for key in value), f"{name} is no dictionary of names")
    assert isinstance(value, dict)
    return value


def require_count(value: object, name: str, most: float) -> int:
    """Return a whole number from 0 to `most`, or raise a FormError."""
    require(type(value) is int and 0 <= value <= most, f"{name}={show(value)} is no whole number from 0 to {most}")
    assert isinstance(value, int)
    return value


def require_number(value: object, name: str) -> float:
    """Return a finite number, or raise a FormError."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    require(number, f"{name}={show(value)} is no finite number")
    assert isinstance(value, int | float)
    return float(value)


def require_form(value: object, form: object, name: str) -> None:
    """Raise a FormError unless a value has the keys and types of another one, and finite numbers.

    Args:
        value: Stored.
        form: Whose values do not matter; None stands for any single value, infinity for any number.
        name: Of the value.
    """
    if isinstance(form, Mapping):
        stored = require_dict(value, name)
        require(stored.keys() == form.keys(), f"{name} must have {', '.join(map(str, form)) or 'no entries'}")
        for key, item in form.items():
            require_form(stored[key], item, f"{name}.{key}")
    elif isinstance(form, Tensor):
        require_tensor(value, form, name)
    elif form is None:
        single = isinstance(value, str | int | float | None) or (isinstance(value, Tensor) and value.ndim == 0)
        require(single, f"{name} is no single value")
    elif isinstance(form, int | float) and not isinstance(form, bool):
        if not (isinstance(value, float) and value == form):  # both may be infinite
            require_number(value, name)
    else:
        require(type(value) is type(form), f"{name}={show(value)} is no {type(form).__name__}")


def require_tensor(value: object, form: Tensor, name: str, finite: bool = True) -> None:
    """Raise a FormError unless a value is a dense tensor of another one's shape and kind, with finite numbers."""
    require(isinstance(value, Tensor), f"{name} is no tensor")
    assert isinstance(value, Tensor)
    require(is_dense(value) and value.shape == form.shape, f"{name} must be a tensor of shape {tuple(form.shape)}")
    kinds = (value.is_floating_point(), value.is_complex(), value.dtype is torch.bool)
    require(
        kinds == (form.is_floating_point(), form.is_complex(), form.dtype is torch.bool), f"{name} is {value.dtype}"
    )
    require(not finite or bool(torch.isfinite(value).all()), f"{name} has values that are not finite")


def require_tensors(value: object, form: Mapping[str, Tensor], name: str) -> None:
    """Raise a FormError unless a value is a dictionary of tensors of the same names, shapes and kinds."""
    stored = require_dict(value, name)
    if stored.keys() != form.keys():
        other = sorted(stored.keys() ^ form.keys())
        raise FormError(f"{name} lacks, or has in addition, {', '.join(map(show, other[:3]))}")
    for key, item in form.items():
        require_tensor(stored[key], item, f"{name}.{key}")


def require_equal(value: object, expected: object, name: str) -> None:
    """Raise a FormError unless a value equals what it must be, but for rounding."""
    require(_is_close(value, expected), f"{name}={show(value)} must be {show(expected)}")


def show(value: object) -> str:
    """Return a value as a short text on one line."""
    text = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else str(value)[: 10 * _SHOWN]
    text = re.sub(r"\s+", " ", text)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _is_close(value: Any, expected: object) -> bool:  # noqa: ANN401 (whatever a checkpoint holds)
    if isinstance(expected, bool | str | None):
        return type(value) is type(expected) and bool(value == expected)
    if isinstance(expected, int | float):
        return type(value) in (int, float) and math.isclose(value, expected, rel_tol=1e-6, abs_tol=1e-12)
    if isinstance(expected, Tensor):
        same = isinstance(value, Tensor) and value.shape == expected.shape
        return same and torch.allclose(value.double(), expected.double())
    if isinstance(expected, list | tuple):
        same = isinstance(value, list | tuple) and len(value) == len(expected)
        return same and all(map(_is_close, value, expected))
    if isinstance(expected, dict):
        same = isinstance(value, dict) and value.keys() == expected.keys()
        return same and all(_is_close(value[key], item) for key, item in expected.items())
    return True  # an object, which no checkpoint of plain types can hold
