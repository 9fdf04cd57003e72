"""Hyperparameters of a trained classifier: their names, types and rules."""

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

_MOST_PIXELS = 4096  # a side; a larger image size would fill the memory when the first image is scored
_MOST_CLASSES = 1000
_LONGEST = 255  # characters of a name, as those of a folder
_ARCHITECTURE = re.compile(r"(timm|torchvision|pneumo)/[\w.-]{1,100}", re.ASCII)
_LAYER = re.compile(r"[\w.-]{1,255}")


@dataclass(frozen=True)
class PredictionOptions:
    """How logits become predictions; checkpoints hold these among their hyperparameters."""

    threshold: float = 0.5  # of two classes, an image is called the positive one above this probability
    temperature: float = 1.0  # logits are divided by it before they become probabilities
    # A prediction whose logits are so near to the threshold is uncertain; None: nobody has chosen it.
    margin: float | None = None
    flip_test: bool = False  # outside of training, average the logits of an image and its mirror image


class HyperparameterError(Exception):
    """A hyperparameter is missing, unknown or breaks its rule; the text says which, in a clause."""


def check_hyperparameters(values: object, required: Collection[str] = ()) -> dict[str, Any]:
    """Return a file's hyperparameters, if each is known and follows its rule, and all `required` are there."""
    if not isinstance(values, Mapping):
        raise HyperparameterError(f"its hyperparameters are {describe(values)} instead of names and values")
    for name, value in values.items():
        if not isinstance(name, str) or name not in _RULES:
            raise HyperparameterError(f"its hyperparameter {describe(name)} is none that pneumo writes")
        holds, rule = _RULES[name]
        if not holds(value):
            raise HyperparameterError(f"its hyperparameter {name} is {describe(value)} and must be {rule}")
    if missing := [name for name in required if name not in values]:
        raise HyperparameterError(f"its hyperparameters lack {' and '.join(missing)}")
    return dict(values)


def describe(value: object) -> str:
    """Return a short text of any value, however large, deep or unprintable it is."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"
    if value is None or isinstance(value, bool | int | float | str):
        text = repr(value[:80] if isinstance(value, str) else value)
        return text if text.isascii() else ascii(value)[:200]
    return f"of the type {type(value).__name__}"


def _number(lowest: float, highest: float = math.inf) -> Callable[[object], bool]:
    def holds(value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return lowest <= value <= highest and value != math.inf  # NaN fails both comparisons

    return holds


def _optional(holds: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or holds(value)


def _matches(pattern: re.Pattern[str]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _flag(value: object) -> bool:
    return isinstance(value, bool)


def _pixels(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST_PIXELS


def _class_names(value: object) -> bool:
    return (
        isinstance(value, list | tuple)
        and 2 <= len(value) <= _MOST_CLASSES
        and all(isinstance(name, str) and 0 < len(name) <= _LONGEST and name.isprintable() for name in value)
        and len(set(value)) == len(value)
    )


_RULES: dict[str, tuple[Callable[[object], bool], str]] = {
    "architecture": (_matches(_ARCHITECTURE), "SOURCE/NAME with the source timm, torchvision or pneumo"),
    "classes": (_class_names, f"from 2 to {_MOST_CLASSES} different printable names"),
    "image_size": (_pixels, f"a whole number of pixels from 1 to {_MOST_PIXELS}"),
    "crop_pct": (_number(0.5, 1), "a fraction from 0.5 to 1"),
    "freeze": (_flag, "true or false"),
    "head_path": (_optional(_matches(_LAYER)), "the path of a layer, or null"),
    "threshold": (_number(0, 1), "a probability from 0 to 1"),
    # Calibration finds temperatures between 1/20 and 20. Far beyond, single precision has no such quotients.
    "temperature": (_number(1e-6, 1e6), "a number from 1e-06 to 1e+06"),
    "margin": (_optional(_number(0)), "a finite number from 0, or null"),
    "flip_test": (_flag, "true or false"),
    # Early versions wrote it as null. Its other values name files, packages and downloads.
    "weights": (lambda value: value is None, "null, since a checkpoint holds all weights"),
}
