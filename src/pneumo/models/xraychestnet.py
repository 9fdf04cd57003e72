"""XrayChestNet, the network proposed in the study."""

import torch
from torch import Tensor, nn

from pneumo.common.hardware import physical_memory
from pneumo.errors import ConfigError


class XrayChestNet(nn.Module):
    """Three wide convolutions and two linear layers, trained from scratch.

    Each convolution (10 @ 5x5, 256 @ 3x3, 512 @ 3x3; stride 1, no padding) is followed by 2x2 max pooling, batch
    normalization and ReLU. With 224 pixels and two classes it has 18,511,524 parameters.

    Source: Montalico and Herrera, Classification and Detection of Pneumonia in X-Ray Images Using Deep Learning
    Techniques, XrayChestNet_v1.
    """

    def __init__(self, image_size: int, classes: int) -> None:
        """Build the network for square images; `image_size` in pixels determines the first linear layer."""
        super().__init__()
        self.features = nn.Sequential(_block(3, 10, 5), _block(10, 256, 3), _block(256, 512, 3))
        side = _output_size(image_size)
        needed = 2 * 4 * 50 * 512 * side * side  # bytes in single precision, twice since loading a file doubles it
        if needed > physical_memory():
            raise ConfigError(
                f"data.image_size={image_size} is too large for XrayChestNet: its first linear layer requires "
                f"{needed / 2**30:.0f} GiB, more than this machine's memory. Set data.image_size=224."
            )
        self.classifier = nn.Sequential(
            nn.Linear(side * side * 512, 50), nn.ReLU(), nn.Dropout(0.2), nn.Linear(50, classes)
        )

    def forward(self, image: Tensor) -> Tensor:
        """Map images (N, 3, image_size, image_size) to logits (N, classes)."""
        features: Tensor = self.features(image)
        logits: Tensor = self.classifier(torch.flatten(features, 1))
        return logits


def _block(channels_in: int, channels_out: int, kernel: int) -> nn.Sequential:
    # Pooling comes first, as in the study; this also quarters the work of the following layers.
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel), nn.MaxPool2d(2), nn.BatchNorm2d(channels_out), nn.ReLU()
    )


def _output_size(image_size: int) -> int:
    side = image_size
    for kernel in (5, 3, 3):
        side = (side - kernel + 1) // 2
    if side < 1:
        raise ConfigError(
            f"data.image_size={image_size} is too small for XrayChestNet: it must be at least 24 pixels. Set "
            "data.image_size=224."
        )
    return side
