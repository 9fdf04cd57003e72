"""The interface of a trained network in use, whichever library computes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pneumo.errors import ConfigError
from pneumo.prediction.rules import Rules

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
            method: See `pneumo.explanations.maps.METHODS`.

        Raises:
            ConfigError: The network has no gradients, or none of its layers fits.
        """
        raise ConfigError(
            f"Maps need gradients, and an exported network ({self.rules.name}) has none: give the checkpoint."
        )
