"""A network without weights, whose probability of PNEUMONIA is the mean brightness of the image."""

import numpy as np

from pneumo.inference.backend import Images, Network, Rules, Scores
from pneumo.inference.predictor import Predictor


class _BrightnessNetwork(Network):
    rules = Rules("test/brightness", ("NORMAL", "PNEUMONIA"), 32, 1.0, 0.5, None, True)
    batch_size = 16

    def score(self, images: Images) -> Scores:
        level = images.mean(axis=(1, 2, 3)) / 255
        probability = np.stack([1 - level, level], axis=1).astype(np.float32)
        return probability, (level / 0.6).astype(np.float32)


def brightness_predictor(batch_size: int | None = None) -> Predictor:
    """Return a predictor with an OOD score above 1 for images brighter than 0.6."""
    return Predictor(_BrightnessNetwork(), batch_size)
