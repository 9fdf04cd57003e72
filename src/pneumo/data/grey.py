"""Grey 8-bit pixels of images of any mode and depth, and the square that networks receive."""

import math
from collections.abc import Iterator
from typing import NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image

from pneumo.errors import DataError

# Part of the caches' keys: change it whenever a readable file gives other pixels.
DECODER = f"grey, squared, bilinear, 2, Pillow {PIL.__version__}"
# What `require_size` allows. Networks halve both sides five times: smaller pictures are less than one cell of theirs.
_LEAST_SIDE = 32
MOST_PIXELS = 178_956_970  # twice Pillow's MAX_IMAGE_PIXELS, from where on Pillow refuses a file
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I")  # Pillow opens a PGM of more than 8 bits as "I", scaled to 16 bits
_BLOCK = 1 << 18  # pixels, for each of which calculations take up to 30 bytes
_DEPTHS = (8, 10, 12, 14)  # bits of detectors and screens, whose values are often saved in files of 16 bits
_Entry = TypeVar("_Entry", bound=np.generic)


class Scale(NamedTuple):
    """Meaning of the values of an image with more than 8 bits."""

    white: int = 65535  # the largest value that a pixel can have
    inverted: bool = False  # whether 0 is white and `white` is black


SIXTEEN_BITS = Scale()


def square(image: Image.Image, size: int, crop_pct: float = 1.0) -> npt.NDArray[np.uint8]:
    """Resize an image of mode L to a square (size, size), without keeping its aspect, as the study does.

    `crop_pct` of height and width is kept, in the middle of the whole resized to size / crop_pct, as in timm's
    evaluation.
    """
    whole = math.floor(size / crop_pct)
    squared = image.resize((whole, whole), Image.Resampling.BILINEAR)
    if whole != size:
        start = (whole - size) // 2
        squared = squared.crop((start, start, start + size, start + size))
    return np.asarray(squared)


def require_size(width: int, height: int) -> None:
    """Raise a DataError unless a picture is large enough to show a chest and small enough for the memory."""
    if min(width, height) < _LEAST_SIDE:
        raise DataError(f"has {width} x {height} pixels, and each side of a radiograph has {_LEAST_SIDE} or more.")
    if width * height > MOST_PIXELS:
        raise DataError(f"says that it has {width} x {height} pixels, and {MOST_PIXELS:,} are the most that is read.")


def require_depth(image: Image.Image, head: bytes) -> None:
    """Raise a DataError if black and white of an image that is not loaded yet are unknown, or Pillow confuses them."""
    if image.mode == "F":
        raise DataError("has floating-point pixels, which have no agreed range: save it with 8 or 16 bits.")
    if image.format == "JPEG2000" and image.mode not in _DEEP and _jpeg2000_bits(head) > 8:  # its white becomes black
        raise DataError("is JPEG 2000 in colour with more than 8 bits, which is not read: save it in grey, or as PNG.")


def _jpeg2000_bits(head: bytes) -> int:
    """Return the depth in the image header box, or in the first marker segment of a bare codestream."""
    box = head.find(b"ihdr")
    depth = head[box + 14 : box + 15] if box >= 0 else head[42:43]
    return (depth[0] & 127) + 1 if depth else 0


def is_deep(image: Image.Image) -> bool:
    """Return whether the file of an image that is not loaded yet has 16 bits a sample."""
    tiles = getattr(image, "tile", ())
    args = tiles[0][3] if tiles else None
    rawmode = args[0] if isinstance(args, tuple) and args else args
    return image.mode in _DEEP or "16" in str(rawmode)  # of 16-bit colours Pillow keeps the high bytes


def to_grey(image: Image.Image, scale: Scale, deep: bool) -> tuple[Image.Image, list[str]]:
    """Convert an image to grey, 8 bits a pixel; return it and a note if the values use few of their bits.

    Colour becomes luminance (ITU-R 601), transparency is ignored, and deeper values are scaled from their full range,
    so that the colour, palette, CMYK and 16-bit versions of a grey 8-bit image become that image. `scale` is that of
    values with more than 8 bits, `deep` what `is_deep` returned.
    """
    if image.mode in _DEEP:
        image.load()
        notes = _depth_notes(max(int(values.max()) for _, values in _value_blocks(image)), scale)
        grey = np.empty((image.height, image.width), np.uint8)
        for rows, values in _value_blocks(image):
            grey[rows] = ((scale.white - values if scale.inverted else values) / (scale.white / 255)).round()
        return Image.fromarray(grey), notes
    notes = []
    if deep and image.mode in ("LA", "RGB", "RGBA"):
        bands = image.split()[: 1 if image.mode == "LA" else 3]  # without alpha
        largest = max(cast(tuple[int, int], band.getextrema())[1] for band in bands)
        notes = _depth_notes(largest * 256 + 255, SIXTEEN_BITS)
    if image.mode == "L":
        image.load()
        return image, notes
    if image.mode not in ("1", "LA", "RGB", "YCbCr"):  # a palette or inks are only numbers until they are colours
        image = image.convert("RGB")
    return image.convert("L"), notes


def blocks(length: int, size: int = 1) -> Iterator[slice]:
    """Yield slices of `length` rows of `size` pixels, since calculations with all at once take too much memory."""
    step = max(1, _BLOCK // size)
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def _value_blocks(image: Image.Image) -> Iterator[tuple[slice, npt.NDArray[np.integer]]]:
    for rows in blocks(image.height, image.width):
        yield rows, np.asarray(image.crop((0, rows.start, image.width, rows.stop)))


def look_up(table: npt.NDArray[_Entry], codes: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[_Entry]:
    """Return each code's entry, block by block: NumPy makes 64-bit indices of all codes that it gets at once."""
    found = np.empty(codes.size, table.dtype)
    flat = codes.reshape(-1)
    for block in blocks(found.size):
        found[block] = table[flat[block]]
    return found.reshape(codes.shape)


def count_codes(codes: npt.NDArray[np.unsignedinteger], kinds: int) -> npt.NDArray[np.int64]:
    """Count how often each code from 0 to `kinds` - 1 occurs, block by block as `look_up` does."""
    flat = codes.reshape(-1)
    return sum((np.bincount(flat[block], minlength=kinds) for block in blocks(flat.size)), np.zeros(kinds, np.int64))


def _depth_notes(largest: int, scale: Scale) -> list[str]:
    """Name the depth that values were made with, if it is clearly less than that of the file."""
    depth = scale.white.bit_length()
    fitting = [bits for bits in _DEPTHS if bits <= depth - 2 and largest < 1 << bits]
    if not fitting or not largest:  # zeros alone have no depth
        return []
    kind, look = f"{fitting[0]}-bit values in a {depth}-bit file", "bright" if scale.inverted else "dark"
    return [
        f"it holds {kind} and comes out too {look}: multiply its values by {1 << depth - fitting[0]} and save it again"
    ]
