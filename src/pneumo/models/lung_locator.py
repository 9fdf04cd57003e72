"""Lung locator: a small network that predicts the convex hull of both lungs, and the box around it."""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

from pneumo.models.resampling import resample

SIDE = 64  # height and width of the network's input and output
_CHANNELS = (16, 32, 48, 64, 64)  # at 64, 32, 16, 8 and 4 pixels
_TAIL = 0.005  # fraction of the hull's mass beyond each edge of the box, so that specks do not enlarge it


class LungLocator(nn.Module):
    """Predict where the lungs are, in float32, always in evaluation mode and without gradients.

    `pneumo.training.lung_training` trains `network`. The weights are random until then.
    """

    def __init__(self) -> None:
        """Initialize with random weights."""
        super().__init__()
        self.network = HullNetwork()
        self.network.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "LungLocator":
        """Set the mode of the locator; its network stays in evaluation mode."""
        self.training = mode
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Predict the probability that each pixel is in the hull of the lungs.

        Args:
            images: Images (N, 1, H, W) of any size, with grey values from 0 to 255, uint8 or float.

        Returns:
            Probabilities (N, 64, 64).
        """
        images = images.detach()
        with torch.autocast(images.device.type, enabled=False):
            inputs = standardize(resample(images[:, 0].float(), SIDE, SIDE))
            logits: Tensor = self.network(inputs)
        return torch.sigmoid(logits)

    def locate(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Predict the box around both lungs and its confidence; see `forward` and `find_boxes`."""
        return find_boxes(self(images))


class HullNetwork(nn.Module):
    """U-Net (Ronneberger et al. 2015) with added instead of concatenated skip connections, 0.26 million parameters."""

    def __init__(self) -> None:
        """Initialize with random weights."""
        super().__init__()
        pairs = list(zip((1, *_CHANNELS), _CHANNELS, strict=False))
        # A second convolution at the two finest levels would double the time.
        self.down = nn.ModuleList(
            _block(old, new) if level < 2 else nn.Sequential(_block(old, new), _block(new, new))
            for level, (old, new) in enumerate(pairs)
        )
        self.reduce = nn.ModuleList(nn.Conv2d(new, old, 1, bias=False) for old, new in pairs[:0:-1])
        self.up = nn.ModuleList(_block(old, old) for old, _ in pairs[:0:-1])
        self.output = nn.Conv2d(_CHANNELS[0], 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Map standardized images, (N, 64, 64), to the logits of the hull, (N, 64, 64)."""
        levels: list[Tensor] = []
        features = images[:, None].to(self.output.weight.dtype)  # half precision with trainer.precision=bf16-true
        for number, block in enumerate(self.down):
            features = block(max_pool2d(features, 2) if number else features)
            levels.append(features)
        for reduce, block, skip in zip(self.reduce, self.up, levels[-2::-1], strict=True):
            features = block(interpolate(reduce(features), scale_factor=2.0) + skip)
        return torch.squeeze(self.output(features), 1).float()


def standardize(images: Tensor) -> Tensor:
    """Scale images, (N, H, W) with grey values from 0 to 255, to mean 0 and standard deviation about 1."""
    images = images / 255
    centred = images - images.mean((1, 2), keepdim=True)
    return centred / (images.std((1, 2), keepdim=True) + 0.05)  # limits the noise of nearly constant images


def find_boxes(probability: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the box around the lungs from the probability maps of the hull, with sub-pixel edges.

    Args:
        probability: Maps (N, H, W).

    Returns:
        Boxes (N, 4): left, top, right and bottom edge as fractions of width and height. The confidence (N,) is the
        mean probability of pixels above 0.5. Without such pixels, the box is the whole image and the confidence 0.
    """
    excess = (probability - 0.5).clamp(min=0)
    inside = (excess > 0).to(probability.dtype)
    confidence = (probability * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
    left, right = _find_edges(excess.sum(1))
    top, bottom = _find_edges(excess.sum(2))
    return torch.stack([left, top, right, bottom], 1), confidence


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def _find_edges(mass: Tensor) -> tuple[Tensor, Tensor]:
    """Return the quantiles `_TAIL` and 1 - `_TAIL` of distributions on 0..1, (N, bins); 0 and 1 without mass."""
    total = mass.sum(1, keepdim=True)
    empty = (total <= 0).to(mass.dtype)
    mass = mass / total.clamp(min=1e-6) + empty / mass.shape[1]
    above = mass.cumsum(1)
    below = above - mass

    def quantile(fraction: float) -> Tensor:
        filled = ((fraction - below) / mass.clamp(min=1e-9)).clamp(0, 1)  # of each bin
        return filled.sum(1) / mass.shape[1]

    low, high = quantile(_TAIL), quantile(1 - _TAIL)
    return low * (1 - empty[:, 0]), high + (1 - high) * empty[:, 0]
