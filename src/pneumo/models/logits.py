"""Logits: calibration by temperature and intercept, and one-vs-rest log odds."""

import torch
from torch import Tensor


def calibrate_logits(logits: Tensor, temperature: float, intercept: float) -> Tensor:
    """Divide logits, (N, classes), by the temperature and add the intercept to those of the second of two classes.

    With two classes, the log odds of the positive class become their difference / temperature + intercept. An intercept
    of 0 leaves the result bit-identical to that of temperature scaling.
    """
    scaled = logits / temperature
    if intercept == 0:
        return scaled
    return scaled + torch.tensor([0.0, intercept], dtype=scaled.dtype, device=scaled.device)


def log_odds(logits: Tensor) -> Tensor:
    """Compute one-vs-rest log odds of each class from logits, both (N, classes); their sigmoid is the probability.

    They rank images whose probabilities round to 0 or 1. With two classes they are the difference of the logits.
    """
    own = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
    return logits - logits[:, None].masked_fill(own, -torch.inf).logsumexp(2)
