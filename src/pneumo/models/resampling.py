"""Resampling of rectangles of images, by matrix products that every export format supports."""

import torch
from torch import Tensor


def resample(images: Tensor, height: int, width: int, boxes: Tensor | None = None) -> Tensor:
    """Resample a box of each image by linear interpolation; when reducing, average with a triangle filter.

    The result is the one of Pillow's BILINEAR, also if a box is partly outside its image: the border is repeated.

    Args:
        images: Images (N, H, W), float.
        height: Height of the output.
        width: Width of the output.
        boxes: Left, top, right and bottom edges (N, 4) as fractions of width and height. None: whole images.

    Returns:
        Images (N, height, width).
    """
    if boxes is None:
        boxes = images.new_tensor([[0.0, 0.0, 1.0, 1.0]])
    left, top, right, bottom = boxes.to(images.dtype).unbind(1)
    rows = _interpolation_weights(top, bottom, images.shape[1], height)
    columns = _interpolation_weights(left, right, images.shape[2], width)
    return rows @ images @ columns.transpose(1, 2)


def _interpolation_weights(low: Tensor, high: Tensor, source: int, target: int) -> Tensor:
    """Compute the weights (N, target, source) of pixels for the interval `low` to `high`, fractions of their range."""
    step = (high - low) * source / target  # source pixels per target pixel
    numbers = torch.arange(target, device=low.device, dtype=low.dtype) + 0.5
    centres = low[:, None] * source + step[:, None] * numbers
    centres = centres.clamp(0.5, source - 0.5)
    pixels = torch.arange(source, device=low.device, dtype=low.dtype) + 0.5
    weights = (1 - (centres[:, :, None] - pixels).abs() / step.clamp(min=1)[:, None, None]).clamp(min=0)
    return weights / weights.sum(2, keepdim=True)
