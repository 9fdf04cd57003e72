"""The distance of predictions from the threshold."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_expit, logit

_LEAST = 1e-7  # nearer to 0 or 1, single precision is not exact
Array = npt.NDArray[np.float64]


def distance(probability: npt.NDArray[np.floating[Any]], threshold: float, odds: Array | None = None) -> Array:
    """Compute the distance, in logits, at which the predicted class would be another, (N,).

    Args:
        probability: Probability of each class, (N, C).
        threshold: Of two classes, the second is predicted above it; of more classes the likeliest one is.
        odds: Log odds of the shape of `probability`, which they replace: they do not round to 0 or 1.
    """
    exact = np.clip(probability.astype(np.float64), _LEAST, 1 - _LEAST)
    if probability.shape[1] == 2:
        margin = logit(exact[:, 1]) if odds is None else odds[:, 1]
        return np.asarray(np.abs(margin - logit(np.clip(threshold, _LEAST, 1 - _LEAST))))
    ranked = np.sort(np.log(exact) if odds is None else log_expit(odds), axis=1)
    return np.asarray(ranked[:, -1] - ranked[:, -2])
