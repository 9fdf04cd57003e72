"""Decoding: every radiograph, however it was stored, becomes the same grey 8-bit picture."""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image

from pneumo.errors import DataError

# Part of the caches' keys: change it whenever `decode` gives other pixels.
DECODER = f"grey, squared, bilinear, 1, Pillow {PIL.__version__}"
# What Pillow raises for files that are truncated, no images, or too large to be ones.
UNREADABLE = (OSError, ValueError, SyntaxError, NotImplementedError, Image.DecompressionBombError)
# What `require_size` allows. Networks halve both sides five times: smaller pictures are less than one cell of theirs.
LEAST_SIDE = 32
MOST_PIXELS = 178_956_970  # twice Pillow's MAX_IMAGE_PIXELS, from where on Pillow refuses a file
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")  # Pillow opens some 16-bit files (PGM, TIFF) as 32-bit "I"


def decode(path: Path, size: int, crop_pct: float = 1.0) -> npt.NDArray[np.uint8]:
    """Read an image as grey and resize it to a square, as the study does, without keeping its aspect.

    Colour becomes luminance (ITU-R 601), transparency is ignored, and 16-bit values are scaled from their full range,
    so that the colour, palette, CMYK and 16-bit versions of a grey 8-bit image decode to that image.

    Args:
        path: Image file in any format that Pillow reads.
        size: Height and width of the result in pixels.
        crop_pct: The share of height and width that is kept, in the middle of the whole resized to size / crop_pct, as
            in timm's evaluation. 1 keeps all.

    Returns:
        Grey values, shape (size, size).

    Raises:
        DataError: The file is truncated, no image, or too large to be one.
    """
    try:
        with Image.open(path) as image:
            return square(to_grey(image), size, crop_pct)
    except UNREADABLE as error:
        raise DataError(
            f"{path} cannot be read as an image ({' '.join(str(error).split())}). Every file with an image's suffix "
            "must be a whole image: replace this one by an intact copy, or delete it."
        ) from error


def square(image: Image.Image, size: int, crop_pct: float = 1.0) -> npt.NDArray[np.uint8]:
    """Resize a grey 8-bit image to a square, shape (size, size), as `decode` does, whose arguments these are."""
    whole = math.floor(size / crop_pct)
    squared = image.resize((whole, whole), Image.Resampling.BILINEAR)
    start = (whole - size) // 2
    return np.asarray(squared.crop((start, start, start + size, start + size)))


def require_size(width: int, height: int) -> None:
    """Raise a DataError unless a picture is large enough to show a chest and small enough for the memory."""
    if min(width, height) < LEAST_SIDE:
        raise DataError(f"has {width} x {height} pixels, and each side of a radiograph has {LEAST_SIDE} or more.")
    if width * height > MOST_PIXELS:
        raise DataError(f"says that it has {width} x {height} pixels, and {MOST_PIXELS:,} are the most that is read.")


def to_grey(image: Image.Image) -> Image.Image:
    """Make an image grey, 8 bits a pixel, as `decode` does."""
    if image.mode in _SIXTEEN_BIT:
        return Image.fromarray((np.asarray(image, dtype=np.int64) / 257).round().clip(0, 255).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range")
    if image.mode in ("L", "1", "LA", "RGB", "YCbCr"):
        return image.convert("L")
    return image.convert("RGB").convert("L")  # a palette or inks are only numbers until they are colours
