"""Batched augmentation on the device, with random numbers of its own for each image.

Libraries compress image by image, or by encoding files. Here the whole batch is processed at once, where it already is.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

# The luminance table of ITU-T T.81, annex K.1, which encoders scale by the quality.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
AUGMENTATION = 5  # part of the features' keys: change it whenever equal numbers give other images
# What an image draws a random number for; a new one comes last, so that the others stay.
NUMBERS = (
    "angle", "right", "down", "size", "side", "light", "range", "blur", "resolution", "quality", "spared", "cut",
    "cut_right", "cut_down", "stretch",
)  # fmt: skip
_Numbers = dict[str, Tensor]


def lower_resolution(image: Tensor, sigma: Tensor, share: Tensor) -> Tensor:
    """Blur images (N, 1, H, W) and remove the fine detail that a lower resolution does not hold.

    Both are one product of spectra: a Gaussian, of `sigma` pixels (N,), and a smooth step at the lower resolution's
    highest frequency, `share` of the resolution (N,). Edges are mirrored, so that nothing comes in from the opposite
    side.
    """
    margin = 8
    height, width = image.shape[2:]
    padded = pad(image, (margin,) * 4, mode="reflect" if min(height, width) > margin else "replicate")
    rows, columns = padded.shape[2:]
    y = torch.fft.fftfreq(rows, device=image.device)[:, None]
    x = torch.fft.rfftfreq(columns, device=image.device)[None, :]
    gauss = torch.exp(-2 * (math.pi * sigma.view(-1, 1, 1, 1)) ** 2 * (x**2 + y**2))
    limit = share.view(-1, 1, 1, 1) / 2  # cycles per pixel
    step = torch.sigmoid((limit - torch.maximum(x.abs(), y.abs())) / 0.02)
    kept = gauss * torch.where(limit < 0.5, step, torch.ones_like(step))
    changed: Tensor = torch.fft.irfft2(torch.fft.rfft2(padded) * kept, s=(rows, columns))
    return changed[..., margin : margin + height, margin : margin + width]


def compress(image: Tensor, quality: Tensor) -> Tensor:
    """Apply JPEG's losses to images (N, 1, H, W), 0 to 255: blocks of 8 x 8 pixels keep rounded cosine coefficients.

    Source: ITU-T T.81; the scale of qualities, 1 to 100, (N,), is that of the Independent JPEG Group's encoder, which
    Pillow uses too.
    """
    height, width = image.shape[2:]
    whole = pad(image, (0, -width % 8, 0, -height % 8), mode="replicate") - 128
    blocks = whole.unfold(2, 8, 8).unfold(3, 8, 8)  # (N, 1, H / 8, W / 8, 8, 8)
    basis = _cosines(image.device)
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)[:, None, None]
    luminance = torch.tensor(_LUMINANCE, dtype=scale.dtype, device=scale.device)
    table = ((luminance * scale + 50) / 100).floor().clamp(1, 255)[:, None, None, None]
    kept = ((basis @ blocks @ basis.T) / table).round() * table
    restored = (basis.T @ kept @ basis).transpose(3, 4).reshape(whole.shape)
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

    The random numbers belong to an image and an epoch, not to a batch: they do not depend on the order of the images,
    on workers or on processes, and a resumed run draws the same ones. (Libraries of augmentations, such as kornia, draw
    by batch.) This is no dataclass, since Hydra would pass one on to the data module as a dictionary.

    Attributes:
        settings: The arguments by name, which are part of the features' keys.
    """

    def __init__(
        self,
        rotation: float,  # degrees
        shift: float,  # fraction of the image's width and height
        zoom: float,  # 0.1 is from 0.9 to 1.1 times the size
        flip: float,  # probability of mirroring left and right
        brightness: float,  # fraction of the range of grey values
        contrast: float,  # 0.1 is from 0.9 to 1.1 times the contrast
        blur: float = 0.0,  # largest standard deviation of a Gaussian, in pixels
        resample: float = 0.0,  # 0.4 leaves from 0.6 to 1 of the resolution
        jpeg: int = 0,  # lowest quality, from 1 to 100
        crop: float = 0.0,  # 0.3 cuts out from 0.7 to 1 of height and width, anywhere, and enlarges it to the whole
        share: float = 1.0,  # fraction of the images that are changed; the others are mirrored and stretched at most
        stretch: float = 0.0,  # 0.4 makes up to 1.4 times as wide, or as high; what is then beyond the edges is cut off
    ) -> None:
        """Store how far each may go, to either side; 0 switches it off.

        Half of the images are spared by each of blur, lower resolution and compression.
        """
        self.settings = {"rotation": rotation, "shift": shift, "zoom": zoom, "flip": flip, "brightness": brightness}
        self.settings |= {"contrast": contrast, "blur": blur, "resample": resample, "jpeg": jpeg, "crop": crop}
        self.settings |= {"share": share, "stretch": stretch}

    @property
    def active(self) -> bool:
        """Whether it changes anything."""
        return any(limit for name, limit in self.settings.items() if name != "share")

    @staticmethod
    @lru_cache(maxsize=1)  # an epoch draws the same numbers at each batch
    def draw(images: int, seed: int, device: torch.device | str = "cpu") -> Tensor:
        """Draw the random numbers of each of a data set's images, (images, numbers) from -1 to 1, on any device."""
        return (torch.rand(images, len(NUMBERS), generator=torch.Generator().manual_seed(seed)) * 2 - 1).to(device)

    def __call__(self, image: Tensor, numbers: Tensor) -> Tensor:
        """Augment images (N, 1, H, W) uint8 by their rows of what `draw` gave, (N, numbers); what moves in is black."""
        drawn = self._spare(dict(zip(NUMBERS, numbers.to(image.device).unbind(1), strict=True)))
        changed = self._relight(self._move(image.float(), drawn), drawn)
        return self._degrade(changed, drawn).round().clamp(0, 255).to(torch.uint8)

    def _spare(self, drawn: _Numbers) -> _Numbers:
        spared = drawn["spared"] >= 2 * self.settings["share"] - 1
        return {
            name: number if name in ("side", "stretch") else torch.where(spared, 0.0, number)
            for name, number in drawn.items()
        }

    def _move(self, image: Tensor, drawn: _Numbers) -> Tensor:
        limit = self.settings
        angle = drawn["angle"] * math.radians(limit["rotation"])
        cut = drawn["cut"].abs() * limit["crop"]
        # The grid holds where a pixel comes from, so sizes are inverted.
        scale = (1 - cut) / (1 + drawn["size"] * limit["zoom"])
        right = 2 * limit["shift"] * drawn["right"] + cut * drawn["cut_right"]
        down = 2 * limit["shift"] * drawn["down"] + cut * drawn["cut_down"]
        mirror = torch.where(drawn["side"] < 2 * limit["flip"] - 1, -1.0, 1.0)
        wider, higher = ((1 + limit["stretch"]) ** -(side * drawn["stretch"]).clamp(min=0) for side in (1, -1))
        x = torch.stack((angle.cos() * mirror * scale * wider, -angle.sin() * scale * wider, right), 1)
        y = torch.stack((angle.sin() * mirror * scale * higher, angle.cos() * scale * higher, down), 1)
        grid = affine_grid(torch.stack((x, y), 1), list(image.shape), align_corners=False)
        return grid_sample(image, grid, align_corners=False)

    def _relight(self, image: Tensor, drawn: _Numbers) -> Tensor:
        factor = (1 + drawn["range"] * self.settings["contrast"]).view(-1, 1, 1, 1)
        offset = (255 * drawn["light"] * self.settings["brightness"]).view(-1, 1, 1, 1)
        middle = image.mean((1, 2, 3), keepdim=True)
        return (image - middle) * factor + middle + offset

    def _degrade(self, image: Tensor, drawn: _Numbers) -> Tensor:
        limit = self.settings
        # Half of the images are spared by each: unchanged images must not be the exception.
        blur, loss, traces = (drawn[name].clamp(min=0) for name in ("blur", "resolution", "quality"))
        if limit["blur"] or limit["resample"]:
            image = lower_resolution(image, blur * limit["blur"], 1 - loss * limit["resample"])
        if limit["jpeg"]:
            quality = 100 - traces * (100 - limit["jpeg"])
            spared = (traces == 0).view(-1, 1, 1, 1)
            image = torch.where(spared, image, compress(image.clamp(0, 255), quality))
        return image
