"""What training minimises."""

from torch import Tensor
from torch.nn.functional import cross_entropy


def weighted_cross_entropy(logits: Tensor, label: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    """Give the cross entropy of smoothed labels, each image weighted by its class.

    Given both, torch weighs what smoothing gives to a class by that class, so that labels of the larger one would be
    smoothed the most; here an image has one weight.

    Args:
        logits: (N, classes).
        label: (N,).
        weights: Of the classes, (classes,); None: one each.
        smoothing: Share of each label that all classes get alike.
    """
    if weights is None:
        return cross_entropy(logits, label, label_smoothing=smoothing)
    losses = cross_entropy(logits, label, label_smoothing=smoothing, reduction="none")
    chosen = weights[label]
    return (losses * chosen).sum() / chosen.sum()
