"""How far answers are from the threshold, told without PyTorch: predictions ask for it too."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_expit, logit

_LEAST = 1e-7  # nearer to 0 or 1, single precision tells no more
Array = npt.NDArray[np.float64]


def distance(probability: npt.NDArray[np.floating[Any]], threshold: float, margin: Array | None = None) -> Array:
    """Tell how far answers are from where they would be others, in logits, (N,).

    Args:
        probability: Of the positive class, (N,), or of three and more classes, (N, classes).
        threshold: Of the positive class, which is called above it; of more classes the likeliest one is.
        margin: Log odds of the shape of `probability`, which they replace: they do not round to 0 or 1.
    """
    exact = np.clip(probability.astype(np.float64), _LEAST, 1 - _LEAST)
    if exact.ndim == 1:
        odds = logit(exact) if margin is None else margin
        return np.asarray(np.abs(odds - logit(np.clip(threshold, _LEAST, 1 - _LEAST))))
    ranked = np.sort(np.log(exact) if margin is None else log_expit(margin), axis=1)
    return np.asarray(ranked[:, -1] - ranked[:, -2])
