"""Augmentation of whole batches, on their device, each image by numbers of its own."""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from pneumo.data.degradation import compress, lower_resolution

AUGMENTATION = 3  # part of the features' keys: change it whenever equal numbers give other images
_NUMBERS = 11  # random numbers that an image takes


@lru_cache(maxsize=1)  # an epoch asks for the same numbers at each batch
def _draw(images: int, seed: int, device: torch.device | str) -> Tensor:
    return (torch.rand(images, _NUMBERS, generator=torch.Generator().manual_seed(seed)) * 2 - 1).to(device)


class Augmentation:
    """Small random rotation, shift, zoom, flip, brightness, contrast, blur, lower resolution and JPEG compression.

    The random numbers belong to an image and an epoch, not to a batch: they do not depend on the order of the images,
    on workers or on processes, and a run that goes on draws them as it would have. (Libraries of augmentations, such as
    kornia, draw by batch.)
    """

    def __init__(
        self,
        rotation: float,
        shift: float,
        zoom: float,
        flip: float,
        brightness: float,
        contrast: float,
        blur: float = 0.0,
        resample: float = 0.0,
        jpeg: int = 0,
        share: float = 1.0,
    ) -> None:
        """Take how far each may go, to either side; 0 switches it off.

        Args:
            rotation: In degrees.
            shift: As a share of the image's width and height.
            zoom: 0.1 is from 0.9 to 1.1 times the size.
            flip: Probability of mirroring left and right.
            brightness: As a share of the range of grey values.
            contrast: 0.1 is from 0.9 to 1.1 times the contrast.
            blur: Largest standard deviation of a Gaussian, in pixels; half of the images are not blurred, and likewise
                below.
            resample: 0.4 leaves from 0.6 to 1 of the resolution.
            jpeg: Lowest quality, from 1 to 100.
            share: Of the images that are changed; the others are mirrored at most.
        """
        self.settings = {
            "rotation": rotation,
            "shift": shift,
            "zoom": zoom,
            "flip": flip,
            "brightness": brightness,
            "contrast": contrast,
            "blur": blur,
            "resample": resample,
            "jpeg": jpeg,
            "share": share,
        }

    @property
    def active(self) -> bool:
        """Whether it changes anything."""
        return any(limit for name, limit in self.settings.items() if name != "share")

    def draw(self, images: int, seed: int, device: torch.device | str = "cpu") -> Tensor:
        """Draw the random numbers of each of a data set's images, (images, 11) from -1 to 1, the same on any device."""
        return _draw(images, seed, device)

    def __call__(self, image: Tensor, numbers: Tensor) -> Tensor:
        """Augment images (N, 1, H, W) uint8 by their rows of what `draw` gave, (N, 11); what moves in is black."""
        numbers = self._spare(numbers.to(image.device))
        changed = self._relight(self._move(image.float(), numbers), numbers)
        return self._degrade(changed, numbers).round().clamp(0, 255).to(torch.uint8)

    def _spare(self, numbers: Tensor) -> Tensor:
        spared = numbers[:, 10:] >= 2 * self.settings["share"] - 1
        mirror = torch.arange(_NUMBERS, device=numbers.device) == 4
        return torch.where(spared & ~mirror, 0.0, numbers)

    def _move(self, image: Tensor, numbers: Tensor) -> Tensor:
        limit = self.settings
        angle, right, down, size, side = numbers[:, :5].unbind(1)
        angle = angle * math.radians(limit["rotation"])
        scale = 1 / (1 + size * limit["zoom"])  # the grid tells where a pixel comes from, so sizes are inverted
        mirror = torch.where(side < 2 * limit["flip"] - 1, -1.0, 1.0)
        x = torch.stack((angle.cos() * mirror, -angle.sin(), 2 * limit["shift"] * right), 1)
        y = torch.stack((angle.sin() * mirror, angle.cos(), 2 * limit["shift"] * down), 1)
        theta = torch.stack((x, y), 1) * torch.stack((scale, scale, torch.ones_like(scale)), 1)[:, None]
        return grid_sample(image, affine_grid(theta, list(image.shape), align_corners=False), align_corners=False)

    def _relight(self, image: Tensor, numbers: Tensor) -> Tensor:
        light, range_ = numbers[:, 5], numbers[:, 6]
        factor = (1 + range_ * self.settings["contrast"]).view(-1, 1, 1, 1)
        offset = (255 * light * self.settings["brightness"]).view(-1, 1, 1, 1)
        middle = image.mean((1, 2, 3), keepdim=True)
        return (image - middle) * factor + middle + offset

    def _degrade(self, image: Tensor, numbers: Tensor) -> Tensor:
        limit = self.settings
        # Half of the images are spared by each: films as they are must not be the exception.
        blur, loss, traces = numbers[:, 7:10].clamp(min=0).unbind(1)
        if limit["blur"] or limit["resample"]:
            image = lower_resolution(image, blur * limit["blur"], 1 - loss * limit["resample"])
        if limit["jpeg"]:
            quality = 100 - traces * (100 - limit["jpeg"])
            spared = (traces == 0).view(-1, 1, 1, 1)
            image = torch.where(spared, image, compress(image.clamp(0, 255), quality))
        return image
