"""The interface of network backends, and the settings of a network other than its weights."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from pneumo.common.input_format import ADDED_CHOICES, NO_HISTOGRAM, SQUEEZE, InputFormat
from pneumo.errors import ConfigError
from pneumo.metrics.predictions import Predictions
from pneumo.models.hyperparameters import HyperparameterError, check_hyperparameters, is_ensemble_name

_MAX_JSON_LENGTH = 1_000_000  # characters; enough for a thousand class names
_JSON_KEYS = {"has_ood_detector": "outliers"}  # keys that differ from the field, for files of earlier versions
Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Scores = tuple[Floats, Floats]  # probabilities (N, classes) and OOD scores (N,)
# Formats a setting of `load_model` for error messages, given its name and value.
SettingStyle = Callable[[str, object], str]


def as_argument(name: str, value: object) -> str:
    """Format a setting as a Python argument, such as `batch_size=16`."""
    return f"{name}={value!r}"


def as_flag(name: str, value: object) -> str:
    """Format a setting as a command-line flag, such as `--batch-size 16`."""
    return f"--{name.replace('_', '-')} {value}"


@dataclass(frozen=True)
class Rules:
    """Settings of a trained network other than its weights; exported files contain them too."""

    name: str  # architecture, such as timm/tf_efficientnet_lite0, or the output of `name_ensemble`
    classes: tuple[str, ...]  # class names; the first is the negative class
    image_size: int  # height and width of the network's input in pixels
    crop_pct: float  # fraction of height and width that the centre crop keeps; see `InputFormat`
    # Probability above which the positive of two classes is predicted. With more classes it has no effect.
    threshold: float
    # Predictions within this distance of the decision boundary, in logits, are uncertain. None: not calibrated.
    margin: float | None
    has_ood_detector: bool
    aspect: str = SQUEEZE  # see `pneumo.common.input_format.InputFormat`
    histogram: str = NO_HISTOGRAM

    @property
    def input_format(self) -> InputFormat:
        """Format of the network's input."""
        return InputFormat(self.image_size, self.crop_pct, self.aspect, self.histogram)

    @property
    def positive_class(self) -> str | None:
        """The positive class of a binary task; None with more than two classes."""
        return self.classes[1] if len(self.classes) == 2 else None

    def to_json(self) -> str:
        """Convert the rules to JSON."""
        values = {_JSON_KEYS.get(name, name): value for name, value in asdict(self).items()}
        added = ADDED_CHOICES.keys() - self.input_format.optional_settings().keys()
        return json.dumps({name: value for name, value in values.items() if name not in added})

    @classmethod
    def from_json(cls, text: str) -> Rules:
        """Parse the output of `to_json`, with the same checks as for the hyperparameters of a checkpoint."""
        names = {_JSON_KEYS.get(field.name, field.name): field.name for field in fields(cls)}
        try:
            values = json.loads(text if len(text) <= _MAX_JSON_LENGTH else "")
        except (ValueError, RecursionError) as error:
            raise HyperparameterError(
                f"its rules are not JSON or have more than {_MAX_JSON_LENGTH:,} characters"
            ) from error
        required = names.keys() - ADDED_CHOICES.keys()
        if not isinstance(values, dict) or not required <= values.keys() <= names.keys():
            raise HyperparameterError(
                f"its rules must have the keys {', '.join(sorted(required))}, and may have "
                f"{' and '.join(ADDED_CHOICES)}"
            )
        if not isinstance(values["outliers"], bool):
            raise HyperparameterError("its rule outliers must be true or false")
        rest = {name: value for name, value in values.items() if name not in ("name", "outliers")}
        check_hyperparameters(rest if is_ensemble_name(values["name"]) else {**rest, "architecture": values["name"]})
        arguments: dict[str, Any] = {names[key]: value for key, value in values.items()}
        return cls(**{**arguments, "classes": tuple(values["classes"])})


class Network(ABC):
    """A network that computes class probabilities and OOD scores of images."""

    rules: Rules
    batch_size: int  # default batch size, with the highest throughput on the device

    @abstractmethod
    def score(self, images: Images) -> Scores:
        """Compute probabilities (N, classes) and OOD scores (N,) of images (N, 1, S, S)."""

    def internal_test(self) -> Predictions | None:
        """Return the predictions for the test images of the network's own run; None if the file has none."""
        return None

    def adaptation(self) -> dict[str, Any] | None:
        """Return the record of a local adaptation, see `pneumo.models.adaptation_record`; None if there was none."""
        return None

    def explainer(self, method: str) -> Callable[[Images], Floats]:
        """Build a function that maps images (N, 1, S, S) to saliency maps (N, S, S).

        Args:
            method: See `pneumo.inference.explain.saliency.METHODS`.

        Raises:
            ConfigError: The network has no gradients, or the method fits none of its layers.
        """
        raise ConfigError(
            f"Saliency maps need gradients, and the exported network {self.rules.name} has none. Use its checkpoint."
        )
