"""Crop of radiographs to the lungs, and saliency maps of such crops placed in the whole image."""

import torch
from torch import Tensor, nn

from pneumo.models.lung_locator import LungLocator
from pneumo.models.resampling import resample

# Margin on each side, as a fraction of the box. The locator's boxes end slightly inside the lungs.
MARGIN = 0.105
# The crop changes smoothly from the whole image to the box between these confidences of the locator, so that an
# image's prediction does not jump.
_WHOLE, _CROPPED = 0.8, 0.85


class LungCrop(nn.Module):
    """Crop radiographs to the lungs, which removes the framing of the image as a shortcut.

    If the locator's confidence is below 0.8, the output is the whole image. Gradients reach the images through the
    interpolation, not through the boxes.
    """

    def __init__(self, size: int, margin: float = MARGIN) -> None:
        """Initialize with a locator of random weights.

        Args:
            size: Height and width of the output in pixels.
            margin: Margin on each side, as a fraction of the lungs' width or height.
        """
        super().__init__()
        self.size, self.margin = size, margin
        self.locator = LungLocator()

    def forward(self, images: Tensor) -> Tensor:
        """Crop images (N, 1, H, W), uint8 or float with values from 0 to 255, to (N, 1, size, size) float32."""
        return self.crop(images, self.boxes(images))

    def boxes(self, images: Tensor) -> Tensor:
        """Compute the boxes of the crops, (N, 4): left, top, right, bottom as fractions of width and height."""
        boxes, confidence = self.locator.locate(images)
        extent = boxes[:, 2:] - boxes[:, :2]
        low, high = boxes[:, :2] - self.margin * extent, boxes[:, 2:] + self.margin * extent
        weight = ((confidence - _WHOLE) / (_CROPPED - _WHOLE)).clamp(0, 1)[:, None]
        return torch.cat([weight * low.clamp(min=0), 1 - weight * (1 - high.clamp(max=1))], 1)

    def crop(self, images: Tensor, boxes: Tensor) -> Tensor:
        """Crop images, (N, 1, H, W), to boxes, (N, 4), with the output of `forward`."""
        with torch.autocast(images.device.type, enabled=False):
            return resample(images[:, 0].float(), self.size, self.size, boxes)[:, None]


def place_crops(maps: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Place maps of crops, such as saliency maps, in the whole image.

    Args:
        maps: Maps (N, S, S) of crops.
        boxes: Boxes (N, 4) of `LungCrop.boxes`.
        height: Height of the whole image.
        width: Width of the whole image.

    Returns:
        Maps (N, height, width), 0 at pixels whose center is outside the box.
    """
    low, extent = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    whole = torch.cat([-low / extent, (1 - low) / extent], 1)  # box of the whole image in fractions of the crop
    y, x = ((torch.arange(length, device=maps.device, dtype=maps.dtype) + 0.5) / length for length in (height, width))
    left, top, right, bottom = (edge[:, None] for edge in boxes.to(maps.dtype).unbind(1))
    rows, columns = (top <= y) & (y <= bottom), (left <= x) & (x <= right)
    return resample(maps, height, width, whole) * (rows[:, :, None] & columns[:, None, :])
