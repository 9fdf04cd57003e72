"""Conversion of a greyscale image to the square input of a network: size, crop, aspect ratio and histogram."""

import math
from typing import Any, NamedTuple

SQUEEZE, CROP, PAD = ASPECTS = ("squeeze", "crop", "pad")
NO_HISTOGRAM, PERCENTILE, EQUALIZE = HISTOGRAMS = ("none", "percentile", "equalize")
# Settings of later versions and their values. Hashes and files omit the first value, the default, so that those of
# earlier versions remain valid.
ADDED_CHOICES = {"aspect": ASPECTS, "histogram": HISTOGRAMS}
_ASPECT_TEXTS = {
    SQUEEZE: "without keeping its aspect ratio",
    CROP: "after cropping the longer side to a square",
    PAD: "after padding the shorter side with black to a square",
}
_HISTOGRAM_TEXTS = {
    PERCENTILE: "the 1st to the 99th percentile of the grey values are scaled to the full range",
    EQUALIZE: "the histogram is equalized",
}


class InputFormat(NamedTuple):
    """Format of a network's input, which training and every later use of a checkpoint share.

    The image is brought to a square as `aspect` says, resized to size / crop_pct, cropped at the center to `size`, and
    its histogram is changed.
    """

    size: int  # height and width of the input in pixels
    crop_pct: float = 1.0  # fraction of height and width of the square that the center crop keeps
    aspect: str = SQUEEZE  # one of ASPECTS
    histogram: str = NO_HISTOGRAM  # one of HISTOGRAMS

    @property
    def resized(self) -> int:
        """Side of the square before the center crop, in pixels."""
        return math.floor(self.size / self.crop_pct)

    @property
    def margin(self) -> int:
        """Pixels that the center crop removes at the left and at the top."""
        return (self.resized - self.size) // 2

    @property
    def crops(self) -> bool:
        """Whether the input can be only a part of an image."""
        return self.crop_pct < 1 or self.aspect == CROP

    def optional_settings(self) -> dict[str, Any]:
        """Return aspect and histogram, unless they have their defaults."""
        values = self._asdict()
        return {name: values[name] for name, choices in ADDED_CHOICES.items() if values[name] != choices[0]}

    def provenance(self) -> dict[str, Any]:
        """Return everything that determines the input's pixels, for the keys of caches."""
        return {"image_size": self.size, "crop_pct": self.crop_pct, **self.optional_settings()}

    def describe(self) -> str:
        """Describe the conversion as a participle clause, such as `resized to 224 x 224 pixels`."""
        cropped = "" if self.crop_pct == 1 else f", cropped to the central {self.size} x {self.size} pixels"
        histogram = "" if self.histogram == NO_HISTOGRAM else f"; {_HISTOGRAM_TEXTS[self.histogram]}"
        return f"resized to {self.resized} x {self.resized} pixels {_ASPECT_TEXTS[self.aspect]}{cropped}{histogram}"

    def input_box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return the left, top, right and bottom edge of the input's region in an image, in its pixels.

        With padding, the region can be larger than the image.
        """
        if self.aspect == SQUEEZE:
            sides = (float(width), float(height))
        else:
            sides = (float((min if self.aspect == CROP else max)(width, height)),) * 2
        low, high = self.margin / self.resized, (self.margin + self.size) / self.resized
        (left, right), (top, bottom) = (
            ((length - side) / 2 + low * side, (length - side) / 2 + high * side)
            for length, side in zip((width, height), sides, strict=True)
        )
        return left, top, right, bottom
