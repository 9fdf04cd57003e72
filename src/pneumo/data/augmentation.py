"""Augmentation of whole batches, on their device, each image by numbers of its own."""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from pneumo.data.degradation import compress, lower_resolution

AUGMENTATION = 5  # part of the features' keys: change it whenever equal numbers give other images
# What an image draws a random number for; a new one comes last, so that the others stay.
# fmt: off
NUMBERS = (
    "angle", "right", "down", "size", "side", "light", "range", "blur", "resolution", "quality", "spared", "cut",
    "cut_right", "cut_down", "stretch",
)
# fmt: on
_Numbers = dict[str, Tensor]


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
