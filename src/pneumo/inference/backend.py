"""The interface of network backends, and the rules that turn logits into predictions."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields

import numpy as np
import numpy.typing as npt

from pneumo.errors import ConfigError
from pneumo.models.hyperparameters import HyperparameterError, check_hyperparameters

_LONGEST = 1_000_000  # characters of JSON: a thousand names of classes
Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Scores = tuple[Floats, Floats]
# Writes a setting of `load_model` in the messages of errors, given its name and its value.
SettingStyle = Callable[[str, object], str]


def as_argument(name: str, value: object) -> str:
    """Write a setting as an argument in Python, such as `batch_size=16`."""
    return f"{name}={value!r}"


def as_flag(name: str, value: object) -> str:
    """Write a setting as a flag of the command, such as `--batch-size 16`."""
    return f"--{name.replace('_', '-')} {value}"


@dataclass(frozen=True)
class Rules:
    """What a checkpoint knows of its task beside its weights; an exported network carries it along."""

    name: str  # of the network, such as timm/tf_efficientnet_lite0
    classes: tuple[str, ...]  # their names; of two, the second is the positive one, of more all but the first
    image_size: int  # height and width of the images in pixels
    crop_pct: float  # what of height and width they keep of a file; see `pneumo.data.grey.square`
    threshold: float  # of two classes, the positive one is predicted above this probability; of more, the likeliest one
    # A prediction that lies so near to the threshold, in logits, is uncertain; None: nobody has chosen it.
    margin: float | None
    outliers: bool  # whether the network has an OOD detector

    @property
    def positive_class(self) -> str | None:
        """The positive class of two, which the threshold decides on; None with more classes."""
        return self.classes[1] if len(self.classes) == 2 else None

    def to_json(self) -> str:
        """Write them as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Rules:
        """Read what `to_json` wrote, under the rules that checkpoints follow."""
        names = {field.name for field in fields(cls)}
        try:
            values = json.loads(text if len(text) <= _LONGEST else "")
        except (ValueError, RecursionError) as error:
            raise HyperparameterError(f"its rules are not JSON, or longer than {_LONGEST} characters") from error
        if not isinstance(values, dict) or values.keys() != names:
            raise HyperparameterError(f"its rules do not have the names {', '.join(sorted(names))}")
        if not isinstance(values["outliers"], bool):
            raise HyperparameterError("its rule outliers must be true or false")
        rest = {name: value for name, value in values.items() if name not in ("name", "outliers")}
        check_hyperparameters({**rest, "architecture": values["name"]})
        return cls(**{**values, "classes": tuple(values["classes"])})


class Network(ABC):
    """A network that scores images."""

    rules: Rules  # how its output becomes predictions
    batch_size: int  # number of images that it scores at once in the least time each

    @abstractmethod
    def score(self, image: Images) -> Scores:
        """Score images (N, 1, S, S): probabilities (N, classes) and OOD scores (N,)."""

    def explainer(self, method: str) -> Callable[[Images], Floats]:
        """Build the function that maps images (N, 1, S, S) to saliency maps (N, S, S).

        Raises a ConfigError if the network has no gradients, or none of its layers fits.

        Args:
            method: See `pneumo.inference.explain.saliency.METHODS`.
        """
        raise ConfigError(
            f"Maps need gradients, and an exported network ({self.rules.name}) has none: give the checkpoint."
        )
