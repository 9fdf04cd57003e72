"""What is done to batches before a network sees them."""

import torch
from torch import Tensor
from torch.nn.functional import one_hot

Batch = dict[str, Tensor]


def mix(x: Tensor, label: Tensor, classes: int, alpha: float) -> tuple[Tensor, Tensor]:
    """Mix each of a batch with the one before it.

    Source: Zhang et al., mixup (2018). Each keeps the larger share, so that it may still be told by its own label;
    torchvision's MixUp takes images only, where this takes features, too.

    Args:
        x: Images or features, floating point, (N, ...).
        label: (N,).
        classes: Their number.
        alpha: The larger share has the distribution Beta(alpha, alpha), above 0.

    Returns:
        What x became, and the shares of the classes, (N, classes).
    """
    share = torch.distributions.Beta(alpha, alpha).sample().item()
    other = min(share, 1 - share)
    shares = one_hot(label, classes).to(x.dtype)
    return x.lerp(x.roll(1, 0), other), shares.lerp(shares.roll(1, 0), other)


def split(batch: Batch, size: int) -> list[Batch]:
    """Split a batch into smaller ones of `size` images; the last may have fewer."""
    if size >= len(batch["label"]):
        return [batch]
    parts = zip(*(torch.split(tensor, size) for tensor in batch.values()), strict=True)
    return [dict(zip(batch, part, strict=True)) for part in parts]
