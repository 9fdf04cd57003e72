"""The prediction for one file, with its notes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pneumo.inference.inputs import Film

NOTICE = "Not a medical device: for research and teaching, and no diagnosis."
UNCERTAIN = "uncertain"
UNLIKE = "unlike the films of the training: perhaps no frontal chest radiograph"
_LEAST = float(np.finfo(np.float32).smallest_subnormal)


@dataclass(frozen=True)
class Prediction:
    """A network's prediction for one file, or the reason why the file cannot be read.

    Attributes:
        path: The file's; `-` for a file that was given by its content.
        probability: Of each class, by its name; empty for a file that cannot be read.
        predicted_class: The name of the class; None for a file that cannot be read.
        uncertain: Whether the probability lies so near to the threshold that another class could be right; None where
            the network's run did not choose how near.
        ood_score: How far the image is from the training images: with more than 1 it is hardly a frontal chest
            radiograph. None where the network has no OOD detector.
        notes: From reading the file, such as an implausible DICOM header.
        error: Why the file cannot be read, as a predicate; None for a file that was read.
    """

    path: Path
    probability: dict[str, float] = field(default_factory=dict)
    predicted_class: str | None = None
    uncertain: bool | None = None
    ood_score: float | None = None
    notes: tuple[str, ...] = ()
    error: str | None = None

    @property
    def out_of_distribution(self) -> bool | None:
        """Whether `ood_score` is above its limit; None where there is none."""
        return None if self.ood_score is None else self.ood_score > 1

    @property
    def positive_probability(self) -> float:
        """Probability of all classes but the first together: pneumonia."""
        rest, *positive = self.probability.values()
        return positive[0] if len(positive) == 1 else 1 - rest

    @property
    def logit_margin(self) -> float:
        """Log odds of `positive_probability`, which rank images whose probability rounds to 1, up to about 103.

        They follow from all probabilities: single precision is finer near 0 than near 1.
        """
        rest, *positive = self.probability.values()
        return math.log(max(sum(positive), _LEAST)) - math.log(max(rest, _LEAST))

    @property
    def remarks(self) -> list[str]:
        """What limits the prediction, in words."""
        known = ((UNCERTAIN, self.uncertain), (UNLIKE, self.out_of_distribution))
        return [*(words for words, true in known if true), *self.notes]


class Batch(NamedTuple):
    """Predictions for several files, in their order, and the images."""

    predictions: list[Prediction]
    films: list[Film]


def show_share(share: float) -> str:
    """Format a probability with three digits, and no 1.000 or 0.000 for what is neither."""
    return ">0.999" if 0.9995 <= share < 1 else "<0.001" if 0 < share < 0.0005 else f"{share:.3f}"
