"""Hyperparameters of a trained classifier: names, types and validation rules."""

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pneumo.common.input_format import ASPECTS, HISTOGRAMS

_MAX_PIXELS = 4096  # height and width; larger images would exhaust the memory at the first prediction
_MAX_CLASSES = 1000
_MAX_NAME_LENGTH = 255  # class names are also folder names
_ARCHITECTURE = re.compile(r"(timm|torchvision|pneumo)/[\w.-]{1,100}", re.ASCII)
_COUNTED = rf"(?:{_ARCHITECTURE.pattern}) \(\d{{1,3}}\)"  # an architecture and its number of members
_ENSEMBLE = re.compile(rf"ensemble of \d{{1,3}}: {_COUNTED}(?:, {_COUNTED})*", re.ASCII)
MAX_MEMBERS = 100  # of an ensemble
_LAYER = re.compile(r"[\w.-]{1,255}")


@dataclass(frozen=True)
class PredictionOptions:
    """Options that turn logits into predictions; stored in the hyperparameters of checkpoints."""

    threshold: float = 0.5  # with two classes, the positive class is predicted above this probability
    temperature: float = 1.0  # logits are divided by it before the softmax
    # Predictions with at most this distance in logits from the threshold are uncertain; None: not selected yet.
    margin: float | None = None
    flip_test: bool = False  # average the logits of an image and its mirror image, except in training
    # Added to the logit of the positive of two classes after the temperature; see `pneumo.metrics.local_adaptation`.
    intercept: float = 0.0

    def hyperparameters(self) -> dict[str, Any]:
        """Return the options as hyperparameters; an intercept of 0 is omitted, so that earlier versions read them."""
        values = asdict(self)
        if self.intercept == 0:
            del values["intercept"]
        return values


class HyperparameterError(Exception):
    """A missing, unknown or invalid hyperparameter; the text is a clause with the reason."""


def check_hyperparameters(values: object, required: Collection[str] = ()) -> dict[str, Any]:
    """Return the hyperparameters of a file after checking names, values and presence of those in `required`."""
    if not isinstance(values, Mapping):
        raise HyperparameterError(f"its hyperparameters are {describe(values)} instead of names and values")
    for name, value in values.items():
        if not isinstance(name, str) or name not in _RULES:
            raise HyperparameterError(f"its hyperparameter {describe(name)} is unknown to pneumo")
        is_valid, rule = _RULES[name]
        if not is_valid(value):
            raise HyperparameterError(f"its hyperparameter {name} is {describe(value)}, but it must be {rule}")
    if missing := [name for name in required if name not in values]:
        raise HyperparameterError(f"its hyperparameters lack {' and '.join(missing)}")
    if values.get("intercept", 0) != 0 and len(values.get("classes", ())) > 2:
        raise HyperparameterError(
            f"its hyperparameter intercept is {values['intercept']:g}, but it must be 0 with more than two classes"
        )
    return dict(values)


def name_ensemble(architectures: Collection[str]) -> str:
    """Return the name of an ensemble, such as `ensemble of 3: timm/resnet50 (2), pneumo/xraychestnet (1)`."""
    counts = Counter(architectures)
    return f"ensemble of {len(architectures)}: {', '.join(f'{name} ({count})' for name, count in counts.items())}"


def is_ensemble_name(value: object) -> bool:
    """Return whether a value is the output of `name_ensemble` for 2 to `MAX_MEMBERS` valid architectures."""
    if not isinstance(value, str) or _ENSEMBLE.fullmatch(value) is None:
        return False
    counted = [part.removesuffix(")").split(" (") for part in value.partition(": ")[2].split(", ")]
    architectures = [name for name, count in counted for _ in range(int(count))]
    return 2 <= len(architectures) <= MAX_MEMBERS and value == name_ensemble(architectures)


def describe(value: object) -> str:
    """Return a short printable description of any value."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"
    if value is None or isinstance(value, bool | int | float | str):
        text = repr(value[:80] if isinstance(value, str) else value)
        return text if text.isascii() else ascii(value)[:200]
    return f"of the type {type(value).__name__}"


def _number(lowest: float, highest: float = math.inf) -> Callable[[object], bool]:
    def is_valid(value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return lowest <= value <= highest and value != math.inf  # NaN fails both comparisons

    return is_valid


def _optional(is_valid: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or is_valid(value)


def _matches(pattern: re.Pattern[str]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _flag(value: object) -> bool:
    return isinstance(value, bool)


def _pixels(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MAX_PIXELS


def _class_names(value: object) -> bool:
    return (
        isinstance(value, list | tuple)
        and 2 <= len(value) <= _MAX_CLASSES
        and all(isinstance(name, str) and 0 < len(name) <= _MAX_NAME_LENGTH and name.isprintable() for name in value)
        and len(set(value)) == len(value)
    )


_RULES: dict[str, tuple[Callable[[object], bool], str]] = {
    "architecture": (_matches(_ARCHITECTURE), "SOURCE/NAME, where SOURCE is timm, torchvision or pneumo"),
    "classes": (_class_names, f"a list of 2 to {_MAX_CLASSES} distinct printable names"),
    "image_size": (_pixels, f"a whole number of pixels from 1 to {_MAX_PIXELS}"),
    "crop_pct": (_number(0.5, 1), "a fraction from 0.5 to 1"),
    "aspect": (lambda value: value in ASPECTS, f"one of {', '.join(ASPECTS)}"),
    "histogram": (lambda value: value in HISTOGRAMS, f"one of {', '.join(HISTOGRAMS)}"),
    "freeze": (_flag, "true or false"),
    "head_path": (_optional(_matches(_LAYER)), "the path of a layer, or null"),
    "lung_crop": (_optional(_pixels), f"a whole number of pixels from 1 to {_MAX_PIXELS}, or null"),
    "threshold": (_number(0, 1), "a probability from 0 to 1"),
    # Calibration fits temperatures between 1/20 and 20. Far outside, logits overflow or vanish in single precision.
    "temperature": (_number(1e-6, 1e6), "a number from 1e-06 to 1e+06"),
    # Adaptation fits much smaller ones. Beyond, every probability would be 0 or 1.
    "intercept": (_number(-1e3, 1e3), "a number from -1000 to 1000"),
    "margin": (_optional(_number(0)), "a finite number of at least 0, or null"),
    "flip_test": (_flag, "true or false"),
    # Early versions stored null. Other values could trigger imports and downloads.
    "weights": (lambda value: value is None, "null, since a checkpoint stores all weights"),
}
