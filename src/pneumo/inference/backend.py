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


@dataclass(frozen=True)
class Rules:
    """What turns a network's output into predictions; checkpoints and exported networks store it.

    Attributes:
        name: Of the network, such as timm/tf_efficientnet_lite0.
        classes: Their names; of two, the second is the positive one, of more all but the first.
        image_size: Height and width of the images in pixels.
        crop_pct: What of height and width they keep of a file; see `pneumo.data.grey.square`.
        threshold: Of two classes, the positive one is predicted above this probability; of more, the likeliest one.
        margin: A prediction that lies so near to the threshold, in logits, is uncertain; None: nobody has chosen it.
        outliers: Whether the network has an OOD detector.
    """

    name: str
    classes: tuple[str, ...]
    image_size: int
    crop_pct: float
    threshold: float
    margin: float | None
    outliers: bool

    @property
    def positive_class(self) -> str | None:
        """The positive class of two, which the threshold decides on; None with more classes."""
        return self.classes[1] if len(self.classes) == 2 else None

    def to_json(self) -> str:
        """Write them as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Rules:
        """Read what `to_json` wrote, under the rules that checkpoints follow.

        Raises:
            HyperparameterError: It is something else, or a value breaks its rule.
        """
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


Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Scores = tuple[Floats, Floats]


class Network(ABC):
    """A network that scores images.

    Attributes:
        rules: How its output becomes predictions.
        batch_size: Number of images that it scores at once in the least time each.
    """

    rules: Rules
    batch_size: int

    @abstractmethod
    def score(self, image: Images) -> Scores:
        """Score images (N, 1, S, S): probabilities (N, classes) and OOD scores (N,)."""

    def explainer(self, method: str = "hirescam") -> Callable[[Images], Floats]:
        """Build the function that maps images (N, 1, S, S) to saliency maps (N, S, S).

        Args:
            method: See `pneumo.inference.explain.saliency.METHODS`.

        Raises:
            ConfigError: The network has no gradients, or none of its layers fits.
        """
        raise ConfigError(
            f"Maps need gradients, and an exported network ({self.rules.name}) has none: give the checkpoint."
        )
