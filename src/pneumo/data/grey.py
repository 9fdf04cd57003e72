"""Conversion of images of any mode and bit depth to 8-bit greyscale, and resizing to the square network input."""

from collections.abc import Iterator
from typing import NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image, ImageOps

from pneumo.common.input_format import CROP, EQUALIZE, PAD, PERCENTILE, InputFormat
from pneumo.errors import DataError

# Part of the cache keys: change it whenever the pixels of any readable file change.
DECODER = f"grey, squared, bilinear, 2, Pillow {PIL.__version__}"
_MIN_SIDE = 32  # networks downsample by 32: smaller images would cover less than one cell of the feature map
MAX_PIXELS = 178_956_970  # twice Pillow's MAX_IMAGE_PIXELS; Pillow rejects larger files
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I")  # Pillow opens a PGM of more than 8 bits as "I", scaled to 16 bits
_CUTOFF = 1  # percent of the pixels that become black, and of those that become white
_BLOCK = 1 << 18  # pixels; computations need up to 30 bytes for each
_DEPTHS = (8, 10, 12, 14)  # bit depths of detectors and screens whose values are often saved in 16-bit files
_Entry = TypeVar("_Entry", bound=np.generic)


class Scale(NamedTuple):
    """Value range of an image with more than 8 bits."""

    white: int = 65535  # the largest possible pixel value
    inverted: bool = False  # whether 0 is white and `white` is black


SIXTEEN_BITS = Scale()
_THUMBNAIL_SIDE = 64
# Grey values. Of 1,500 radiographs of children (Kermany et al.) and 455 of adults (NIH Clinical Center), none is taken
# for a negative; of their negatives, 99.6 and 92 % are.
_NEGATIVE_CONTRAST = 20


def square(image: Image.Image, form: InputFormat) -> npt.NDArray[np.uint8]:
    """Convert an image of mode L to a network's input, (size, size); see `InputFormat`.

    As in timm's evaluation transform, the image is resized to size / crop_pct and then center-cropped.
    """
    side = (form.resized, form.resized)
    if form.aspect == PAD:
        squared = ImageOps.pad(image, side, Image.Resampling.BILINEAR)
    elif form.aspect == CROP:
        squared = ImageOps.fit(image, side, Image.Resampling.BILINEAR)
    else:
        squared = image.resize(side, Image.Resampling.BILINEAR)
    if form.resized != form.size:
        start = form.margin
        squared = squared.crop((start, start, start + form.size, start + form.size))
    if form.histogram == EQUALIZE:
        squared = ImageOps.equalize(squared)
    elif form.histogram == PERCENTILE:
        squared = ImageOps.autocontrast(squared, cutoff=_CUTOFF)
    return np.asarray(squared)


def looks_negative(image: Image.Image) -> bool:
    """Return whether an image of mode L looks like the negative of a frontal chest radiograph.

    Air is dark in a radiograph: both lungs are darker than the mediastinum between them, and the background at the
    sides is darker than the chest.
    """
    grey = np.asarray(image.resize((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), Image.Resampling.BILINEAR), np.float32)
    mediastinum, chest = grey[12:48, 28:36].mean(), grey[16:48, 16:48].mean()
    lungs = [grey[12:44, 12:24].mean() - mediastinum, grey[12:44, 40:52].mean() - mediastinum]
    sides = [grey[:40, :5].mean() - chest, grey[:40, -5:].mean() - chest]
    return bool(min(lungs) > 0 and np.mean(lungs) + np.mean(sides) > _NEGATIVE_CONTRAST)


def require_size(width: int, height: int) -> None:
    """Raise a DataError if an image has too few pixels on a side or too many in total."""
    if min(width, height) < _MIN_SIDE:
        raise DataError(f"has {width} x {height} pixels, but each side must have at least {_MIN_SIDE}.")
    if width * height > MAX_PIXELS:
        raise DataError(f"declares {width} x {height} pixels, but the maximum is {MAX_PIXELS:,}.")


def require_depth(image: Image.Image, head: bytes) -> None:
    """Raise a DataError for an image, not loaded yet, whose value range is unknown or decoded wrongly by Pillow."""
    if image.mode == "F":
        raise DataError("has floating-point pixels, which have no defined range: save it with 8 or 16 bits.")
    # Pillow would decode white as black.
    if image.format == "JPEG2000" and image.mode not in _DEEP and _jpeg2000_bits(head) > 8:
        raise DataError(
            "is a colour JPEG 2000 with more than 8 bits, which is not supported: save it in greyscale or as PNG."
        )


def _jpeg2000_bits(head: bytes) -> int:
    """Return the bit depth in the image header box, or in the first marker segment of a bare codestream."""
    box = head.find(b"ihdr")
    depth = head[box + 14 : box + 15] if box >= 0 else head[42:43]
    return (depth[0] & 127) + 1 if depth else 0


def is_deep(image: Image.Image) -> bool:
    """Return whether the file of an image, not loaded yet, has 16 bits per sample."""
    tiles = getattr(image, "tile", ())
    args = tiles[0][3] if tiles else None
    rawmode = args[0] if isinstance(args, tuple) and args else args
    return image.mode in _DEEP or "16" in str(rawmode)  # Pillow keeps only the high bytes of 16-bit colours


def to_grey(image: Image.Image, scale: Scale, deep: bool) -> tuple[Image.Image, list[str]]:
    """Convert an image to 8-bit greyscale; return it with a note if its values use only some of their bits.

    Colour becomes luminance (ITU-R 601), transparency is ignored, and deeper values are scaled from their full range.
    The colour, palette, CMYK and 16-bit versions of an 8-bit greyscale image therefore become that image.

    Args:
        image: The image, opened but not loaded.
        scale: Value range of an image with more than 8 bits.
        deep: The result of `is_deep`.
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
    if image.mode not in ("1", "LA", "RGB", "YCbCr"):  # such as a palette or CMYK
        image = image.convert("RGB")
    return image.convert("L"), notes


def blocks(length: int, size: int = 1) -> Iterator[slice]:
    """Yield slices of `length` rows of `size` pixels each, to bound the memory of computations."""
    step = max(1, _BLOCK // size)
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def _value_blocks(image: Image.Image) -> Iterator[tuple[slice, npt.NDArray[np.integer]]]:
    for rows in blocks(image.height, image.width):
        yield rows, np.asarray(image.crop((0, rows.start, image.width, rows.stop)))


def look_up(table: npt.NDArray[_Entry], codes: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[_Entry]:
    """Return `table[codes]`, computed in blocks, since NumPy converts all codes of a call to 64-bit indices."""
    entries = np.empty(codes.size, table.dtype)
    flat = codes.reshape(-1)
    for block in blocks(entries.size):
        entries[block] = table[flat[block]]
    return entries.reshape(codes.shape)


def count_codes(codes: npt.NDArray[np.unsignedinteger], size: int) -> npt.NDArray[np.int64]:
    """Count how often each code from 0 to `size` - 1 occurs, in blocks like `look_up`."""
    flat = codes.reshape(-1)
    return sum((np.bincount(flat[block], minlength=size) for block in blocks(flat.size)), np.zeros(size, np.int64))


def _depth_notes(largest: int, scale: Scale) -> list[str]:
    """Return a note with the original bit depth of the values if it is clearly less than that of the file."""
    depth = scale.white.bit_length()
    fitting = [bits for bits in _DEPTHS if bits <= depth - 2 and largest < 1 << bits]
    if not fitting or not largest:  # zeros alone have no depth
        return []
    values, look = f"{fitting[0]}-bit values in a {depth}-bit file", "bright" if scale.inverted else "dark"
    return [f"{values} look too {look}: multiply them by {1 << depth - fitting[0]} and save the file again"]
