"""How a network's answers are to be taken: what is called what, what is uncertain, what is no chest radiograph."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields

import numpy as np
import numpy.typing as npt

from pneumo.evaluation.answers import predict_classes
from pneumo.evaluation.distance import distance
from pneumo.models.hparams import HyperparameterError, check_hyperparameters

_LONGEST = 1_000_000  # characters of JSON: a thousand names of classes
_LEAST = float(np.finfo(np.float32).smallest_subnormal)


@dataclass(frozen=True)
class Rules:
    """What a checkpoint knows of its task beside its weights; an exported network carries it along.

    Attributes:
        name: Of the network, such as timm/tf_efficientnet_lite0.
        classes: Their names; of two, the second is the positive one, of more all but the first.
        image_size: Height and width of the images in pixels.
        crop_pct: What of height and width they keep of a film; see `pneumo.data.images.square`.
        threshold: Of two classes, an image is called positive above this probability; of more the likeliest is called.
        margin: An answer that lies so near to the threshold, in logits, is uncertain; None: nobody has chosen it.
        outliers: Whether the network tells images that are unlike those it was trained on.
    """

    name: str
    classes: tuple[str, ...]
    image_size: int
    crop_pct: float
    threshold: float
    margin: float | None
    outliers: bool

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

    def apply(self, probability: npt.NDArray[np.float32], unlike: npt.NDArray[np.float32]) -> list[Answer]:
        """Turn what a network gives into answers.

        Args:
            probability: Of the classes, (N, classes).
            unlike: How unlike the training images each image is, (N,): more than 1 is too much.
        """
        two = len(self.classes) == 2
        called = predict_classes(probability, self.threshold)
        far = distance(probability, self.threshold)
        near = np.zeros(len(far), bool) if self.margin is None else far <= self.margin
        shares = (tuple(float(f"{share:.9g}") for share in row) for row in probability)  # as predictions.csv has them
        return [
            Answer(share, 1 - share[0] if not two else share[1], self.classes[call], bool(unsure), float(score))
            for share, call, unsure, score in zip(shares, called, near, unlike, strict=True)
        ]


@dataclass(frozen=True)
class Answer:
    """What a network says of one film.

    Attributes:
        probabilities: Of the classes.
        probability: Of all classes but the first together: pneumonia.
        called: Name of the class that it is called.
        uncertain: Whether it lies so near to the threshold that it could as well be another.
        unlike: How unlike the training images the film is: with more than 1 it is hardly a frontal chest radiograph.
    """

    probabilities: tuple[float, ...]
    probability: float
    called: str
    uncertain: bool
    unlike: float

    @property
    def logit_margin(self) -> float:
        """Log odds of `probability`, which rank images whose probability rounds to 1, up to about 103.

        They follow from all probabilities: single precision is finer near 0 than near 1.
        """
        rest, *positive = self.probabilities
        return math.log(max(sum(positive), _LEAST)) - math.log(max(rest, _LEAST))
