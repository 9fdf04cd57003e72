"""Batched augmentation on the device, with independent random numbers for each image."""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from pneumo.data.degradations import add_noise, compress, lower_resolution

AUGMENTATION_VERSION = 5  # in the cache keys of features: increase it if the same random numbers give other images
# Names of the random numbers of an image. Those of version 2 come from a generator of their own, so that the numbers
# of version 1 stay the same.
_NUMBERS_1 = (
    "rotation", "shift_x", "shift_y", "zoom", "flip", "brightness", "contrast", "blur", "resample", "jpeg", "skip",
    "crop", "crop_x", "crop_y", "stretch",
)  # fmt: skip
_NUMBERS_2 = (
    "noise", "noise_kind", "noise_y", "noise_x", "gamma", "border_left", "border_right", "border_top", "border_bottom",
    "border_grey",
)  # fmt: skip
NUMBERS = _NUMBERS_1 + _NUMBERS_2
_SECOND = 1 << 40  # far from the seeds of version 1, which are 100,000 times the seed of a run, plus the epoch
_Numbers = dict[str, Tensor]


class Augmentation:
    """Random rotation, shift, zoom, stretch, crop, flip, brightness, contrast, blur, lower resolution and compression.

    Random numbers are drawn per image and epoch, not per batch as in libraries such as kornia. They do not depend on
    the image order, the workers or the processes, so a resumed run draws the same numbers. This is not a dataclass,
    because Hydra would pass a dataclass to the data module as a dictionary.

    Attributes:
        settings: Constructor arguments by name; part of the cache keys of features.
    """

    def __init__(
        self,
        rotation: float,  # degrees
        shift: float,  # fraction of the image's width and height
        zoom: float,  # 0.1: from 0.9 to 1.1 times the size
        flip: float,  # probability of a horizontal flip
        brightness: float,  # fraction of the grey value range
        contrast: float,  # 0.1: from 0.9 to 1.1 times the contrast
        blur: float = 0.0,  # largest standard deviation of a Gaussian, in pixels
        resample: float = 0.0,  # 0.4: from 0.6 to 1 of the resolution
        jpeg: int = 0,  # lowest JPEG quality, from 1 to 100
        crop: float = 0.0,  # 0.3: crop from 0.7 to 1 of height and width at a random position, and resize
        share: float = 1.0,  # fraction of images with all changes; the others are at most flipped and stretched
        stretch: float = 0.0,  # 0.4: up to 1.4 times as wide or as high, cropped to the original size
        noise: float = 0.0,  # largest standard deviation as a fraction of the grey value range
        gamma: float = 0.0,  # 1: grey values from 0 to 1 are raised to a power from 1/2 to 2
        border: float = 0.0,  # 0.1: each side is covered with one grey value, up to 0.1 of height or width
    ) -> None:
        """Store the limits; 0 disables a change.

        Noise, blur, lower resolution and compression each leave half of the images unchanged, and a border half of the
        sides.
        """
        self.settings = {"rotation": rotation, "shift": shift, "zoom": zoom, "flip": flip, "brightness": brightness}
        self.settings |= {"contrast": contrast, "blur": blur, "resample": resample, "jpeg": jpeg, "crop": crop}
        self.settings |= {"share": share, "stretch": stretch, "noise": noise, "gamma": gamma, "border": border}

    @property
    def active(self) -> bool:
        """True if any change is enabled."""
        return any(limit for name, limit in self.settings.items() if name != "share")

    @staticmethod
    @lru_cache(maxsize=1)  # all batches of an epoch need the same numbers
    def draw(images: int, seed: int, device: torch.device | str = "cpu") -> Tensor:
        """Draw the random numbers of all images of a data set, (images, len(NUMBERS)), from -1 to 1."""
        drawn = [
            torch.rand(images, len(names), generator=torch.Generator().manual_seed(start))
            for names, start in ((_NUMBERS_1, seed), (_NUMBERS_2, seed + _SECOND))
        ]
        return (torch.cat(drawn, 1) * 2 - 1).to(device)

    def __call__(self, image: Tensor, numbers: Tensor) -> Tensor:
        """Augment images (N, 1, H, W) uint8 with their random numbers, (N, len(NUMBERS)); empty regions are black."""
        drawn = self._skip(dict(zip(NUMBERS, numbers.to(image.device).unbind(1), strict=True)))
        changed = self._cover_border(self._adjust_intensity(self._warp(image.float(), drawn), drawn), drawn)
        return self._degrade(changed, drawn).round().clamp(0, 255).to(torch.uint8)

    def _skip(self, drawn: _Numbers) -> _Numbers:
        skipped = drawn["skip"] >= 2 * self.settings["share"] - 1
        return {
            name: number if name in ("flip", "stretch") else torch.where(skipped, 0.0, number)
            for name, number in drawn.items()
        }

    def _warp(self, image: Tensor, drawn: _Numbers) -> Tensor:
        limit = self.settings
        angle = drawn["rotation"] * math.radians(limit["rotation"])
        crop = drawn["crop"].abs() * limit["crop"]
        # The grid maps output to input coordinates, so scales are inverted.
        scale = (1 - crop) / (1 + drawn["zoom"] * limit["zoom"])
        shift_x = 2 * limit["shift"] * drawn["shift_x"] + crop * drawn["crop_x"]
        shift_y = 2 * limit["shift"] * drawn["shift_y"] + crop * drawn["crop_y"]
        mirror = torch.where(drawn["flip"] < 2 * limit["flip"] - 1, -1.0, 1.0)
        scale_x, scale_y = ((1 + limit["stretch"]) ** -(sign * drawn["stretch"]).clamp(min=0) for sign in (1, -1))
        x = torch.stack((angle.cos() * mirror * scale * scale_x, -angle.sin() * scale * scale_x, shift_x), 1)
        y = torch.stack((angle.sin() * mirror * scale * scale_y, angle.cos() * scale * scale_y, shift_y), 1)
        grid = affine_grid(torch.stack((x, y), 1), list(image.shape), align_corners=False)
        return grid_sample(image, grid, align_corners=False)

    def _adjust_intensity(self, image: Tensor, drawn: _Numbers) -> Tensor:
        factor = (1 + drawn["contrast"] * self.settings["contrast"]).view(-1, 1, 1, 1)
        offset = (255 * drawn["brightness"] * self.settings["brightness"]).view(-1, 1, 1, 1)
        middle = image.mean((1, 2, 3), keepdim=True)
        image = (image - middle) * factor + middle + offset
        if self.settings["gamma"]:
            exponent = (1 + self.settings["gamma"]) ** drawn["gamma"].view(-1, 1, 1, 1)
            image = 255 * (image.clamp(0, 255) / 255) ** exponent
        return image

    def _cover_border(self, image: Tensor, drawn: _Numbers) -> Tensor:
        """Cover the sides, as collimators do; half of them stay uncovered."""
        limit = self.settings["border"]
        if not limit:
            return image
        left, right, top, bottom = (
            (drawn[f"border_{side}"].clamp(min=0) * limit).view(-1, 1, 1, 1)
            for side in ("left", "right", "top", "bottom")
        )
        y, x = (
            ((torch.arange(side, device=image.device) + 0.5) / side).view(shape)
            for side, shape in zip(image.shape[2:], ((-1, 1), (1, -1)), strict=True)
        )
        covered = (x < left) | (x > 1 - right) | (y < top) | (y > 1 - bottom)
        grey = 255 * drawn["border_grey"].clamp(min=0).view(-1, 1, 1, 1)  # half of the borders are black
        return torch.where(covered, grey, image)

    def _degrade(self, image: Tensor, drawn: _Numbers) -> Tensor:
        limit = self.settings
        # Negative numbers become 0, so each degradation leaves half of the images unchanged: training needs clean ones.
        blur, resample, jpeg = (drawn[name].clamp(min=0) for name in ("blur", "resample", "jpeg"))
        if limit["noise"]:  # before the loss of resolution, as in an X-ray detector
            deviation = 255 * limit["noise"] * drawn["noise"].clamp(min=0)
            corner = torch.stack((drawn["noise_y"], drawn["noise_x"]), 1) / 2 + 0.5
            image = add_noise(image, deviation, drawn["noise_kind"] > 0, corner)
        if limit["blur"] or limit["resample"]:
            image = lower_resolution(image, blur * limit["blur"], 1 - resample * limit["resample"])
        if limit["jpeg"]:
            quality = 100 - jpeg * (100 - limit["jpeg"])
            unchanged = (jpeg == 0).view(-1, 1, 1, 1)
            image = torch.where(unchanged, image, compress(image.clamp(0, 255), quality))
        return image
