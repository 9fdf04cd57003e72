"""Batched augmentation on the device, with independent random numbers for each image.

Libraries apply JPEG compression image by image, or encode files. This module processes whole batches on their device.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

# Luminance quantization table of ITU-T T.81, annex K.1; encoders scale it by the quality.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
AUGMENTATION_VERSION = 5  # in the cache keys of features: increase it if the same random numbers give other images
# Names of the random numbers of an image. Append new ones, so that the existing numbers do not change.
NUMBERS = (
    "rotation", "shift_x", "shift_y", "zoom", "flip", "brightness", "contrast", "blur", "resample", "jpeg", "skip",
    "crop", "crop_x", "crop_y", "stretch",
)  # fmt: skip
_Numbers = dict[str, Tensor]


def lower_resolution(image: Tensor, sigma: Tensor, fraction: Tensor) -> Tensor:
    """Blur images (N, 1, H, W) and remove the frequencies that a lower resolution cannot represent.

    The spectrum is multiplied by a Gaussian and by a smooth step. The images are padded by reflection, because the
    discrete Fourier transform is periodic.

    Args:
        image: Images, (N, 1, H, W).
        sigma: Standard deviations of the Gaussian in pixels, (N,).
        fraction: Lower resolutions as fractions of the original one, (N,). They set the position of the step.
    """
    margin = 8
    height, width = image.shape[2:]
    padded = pad(image, (margin,) * 4, mode="reflect" if min(height, width) > margin else "replicate")
    rows, columns = padded.shape[2:]
    y = torch.fft.fftfreq(rows, device=image.device)[:, None]
    x = torch.fft.rfftfreq(columns, device=image.device)[None, :]
    gauss = torch.exp(-2 * (math.pi * sigma.view(-1, 1, 1, 1)) ** 2 * (x**2 + y**2))
    limit = fraction.view(-1, 1, 1, 1) / 2  # cycles per pixel
    step = torch.sigmoid((limit - torch.maximum(x.abs(), y.abs())) / 0.02)
    transfer = gauss * torch.where(limit < 0.5, step, torch.ones_like(step))
    changed: Tensor = torch.fft.irfft2(torch.fft.rfft2(padded) * transfer, s=(rows, columns))
    return changed[..., margin : margin + height, margin : margin + width]


def compress(image: Tensor, quality: Tensor) -> Tensor:
    """Apply JPEG quantization to images (N, 1, H, W) with values from 0 to 255.

    The discrete cosine coefficients of each block of 8 x 8 pixels are quantized. `quality`, (N,), ranges from 1 to 100
    on the scale of the Independent JPEG Group's encoder, which Pillow also uses. Source: ITU-T T.81.
    """
    height, width = image.shape[2:]
    whole = pad(image, (0, -width % 8, 0, -height % 8), mode="replicate") - 128
    blocks = whole.unfold(2, 8, 8).unfold(3, 8, 8)  # (N, 1, H / 8, W / 8, 8, 8)
    basis = _cosines(image.device)
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)[:, None, None]
    luminance = torch.tensor(_LUMINANCE, dtype=scale.dtype, device=scale.device)
    table = ((luminance * scale + 50) / 100).floor().clamp(1, 255)[:, None, None, None]
    quantized = ((basis @ blocks @ basis.T) / table).round() * table
    restored = (basis.T @ quantized @ basis).transpose(3, 4).reshape(whole.shape)
    return (restored[..., :height, :width] + 128).round().clamp(0, 255)


@lru_cache(maxsize=4)
def _cosines(device: torch.device) -> Tensor:
    """Return the orthonormal basis of the discrete cosine transform, (8, 8)."""
    k, n = torch.arange(8)[:, None], torch.arange(8)[None, :]
    basis = torch.cos(math.pi * (2 * n + 1) * k / 16) / 2
    basis[0] /= math.sqrt(2)
    return basis.to(device)


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
    ) -> None:
        """Store the limits; 0 disables a change.

        Blur, lower resolution and compression each leave half of the images unchanged.
        """
        self.settings = {"rotation": rotation, "shift": shift, "zoom": zoom, "flip": flip, "brightness": brightness}
        self.settings |= {"contrast": contrast, "blur": blur, "resample": resample, "jpeg": jpeg, "crop": crop}
        self.settings |= {"share": share, "stretch": stretch}

    @property
    def active(self) -> bool:
        """True if any change is enabled."""
        return any(limit for name, limit in self.settings.items() if name != "share")

    @staticmethod
    @lru_cache(maxsize=1)  # all batches of an epoch need the same numbers
    def draw(images: int, seed: int, device: torch.device | str = "cpu") -> Tensor:
        """Draw the random numbers of all images of a data set, (images, len(NUMBERS)), from -1 to 1."""
        return (torch.rand(images, len(NUMBERS), generator=torch.Generator().manual_seed(seed)) * 2 - 1).to(device)

    def __call__(self, image: Tensor, numbers: Tensor) -> Tensor:
        """Augment images (N, 1, H, W) uint8 with their random numbers, (N, len(NUMBERS)); empty regions are black."""
        drawn = self._skip(dict(zip(NUMBERS, numbers.to(image.device).unbind(1), strict=True)))
        changed = self._adjust_intensity(self._warp(image.float(), drawn), drawn)
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
        return (image - middle) * factor + middle + offset

    def _degrade(self, image: Tensor, drawn: _Numbers) -> Tensor:
        limit = self.settings
        # Negative numbers become 0, so each degradation leaves half of the images unchanged: training needs clean ones.
        blur, resample, jpeg = (drawn[name].clamp(min=0) for name in ("blur", "resample", "jpeg"))
        if limit["blur"] or limit["resample"]:
            image = lower_resolution(image, blur * limit["blur"], 1 - resample * limit["resample"])
        if limit["jpeg"]:
            quality = 100 - jpeg * (100 - limit["jpeg"])
            unchanged = (jpeg == 0).view(-1, 1, 1, 1)
            image = torch.where(unchanged, image, compress(image.clamp(0, 255), quality))
        return image
