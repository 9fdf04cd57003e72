"""Log odds of classes."""

import torch
from torch import Tensor


def log_odds(logits: Tensor) -> Tensor:
    """Compute each class's log odds against the rest, whose sigmoid is its probability.

    They keep the rank of images whose probabilities round to 0 or 1. Of two classes they are the difference of logits.

    Args:
        logits: (N, classes).

    Returns:
        (N, classes).
    """
    own = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
    return logits - logits[:, None].masked_fill(own, -torch.inf).logsumexp(2)
