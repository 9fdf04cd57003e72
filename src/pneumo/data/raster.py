"""The reader of raster formats (JPEG, PNG, TIFF, BMP and others): a bounded grey image, or the reason against it."""

import codecs
import struct
from contextlib import suppress
from typing import BinaryIO, NamedTuple, cast

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from pneumo.data.decoder_limits import Meter, picture_bytes, require_memory
from pneumo.data.grey import SIXTEEN_BITS, is_deep, look_up, require_depth, require_size, to_grey
from pneumo.data.jpeg import Scans, inspect_scans, is_jpeg2000, require_structure
from pneumo.data.tiff import TiffKind, is_tiff
from pneumo.errors import DataError

_MOST_COMMENTS = 1000


def read_scaled(image: Image.Image, stream: Meter) -> Image.Image:
    """Decode an image, not loaded yet, whose values have to be scaled as Pillow does; return any other as it is.

    Raises:
        DataError: There are fewer pixels than the header says.
    """
    if image.format != "PPM" or image.tile[0][0] != "ppm":  # type: ignore[attr-defined] # an ImageFile
        return image
    _, _, offset, (*_, largest) = image.tile[0]  # type: ignore[attr-defined] # an ImageFile
    deep, bands = image.mode == "I", len(image.getbands())
    stored, white = (">u2" if largest > 255 else "u1"), 65535 if deep else 255
    stream.seek(offset)
    size = image.width * image.height * bands
    codes = np.frombuffer(stream.read(size * np.dtype(stored).itemsize), stored)
    if codes.size != size:
        raise DataError("is cut off: it has fewer pixels than its header says. Replace it by an intact copy.")
    table = np.rint(np.arange(65536) / largest * white).clip(max=white).astype(np.uint16 if deep else np.uint8)
    shape = (image.height, image.width, bands)
    return Image.fromarray(look_up(table, codes).reshape(shape[: 3 if bands > 1 else 2]))


def require_few_comments(content: bytes) -> None:
    """Raise a DataError for an image in decimal digits with very many comments: Pillow copies a block for each."""
    if content.count(b"#") > _MOST_COMMENTS:
        raise DataError(f"is a PGM or PPM with more than {_MOST_COMMENTS:,} comments: save it as PNG.")


# What docs/PREDICTION.md lists. Pillow's other decoders are slow, unbounded, or start programs; MPO comes with JPEG.
FORMATS = ("JPEG", "PNG", "TIFF", "JPEG2000", "BMP", "WEBP", "GIF", "PPM")
INTACT = "replace it by an intact copy"
_OTHERS = {  # what else is often among films, by the bytes that such files start with
    b"PK\x03\x04": "is a ZIP archive: unpack it first.",
    b"\x1f\x8b": "is compressed by gzip: unpack it first.",
    b"%PDF": "is a PDF document: save its picture as PNG.",
    b"\xff\xd8\xff": f"is a damaged JPEG: {INTACT}.",
    b"\x89PNG": f"is a damaged PNG: {INTACT}.",
    b"%!PS": "is a drawing, not a picture of pixels: save it as PNG.",
    b"\xc5\xd0\xd3\xc6": "is a drawing, not a picture of pixels: save it as PNG.",
}
_UPRIGHT = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SLOW = ("bmp_rle", "ppm_plain")  # Pillow's decoders in Python
_MOST_PLAIN = 4_000_000  # pixels that these decode in some 5 s


class Storage(NamedTuple):
    """How a file stores its image."""

    mode: str  # Pillow's name for the channels, such as L, RGB or I;16
    format: str  # Pillow's name for the format, such as JPEG, or DICOM


class Opened(NamedTuple):
    """An image that was read."""

    image: Image.Image  # grey, 8 bits a pixel
    notes: list[str]  # what is doubtful about it
    storage: Storage
    shallow: bool = False  # whether a note says already why there are few greys


def read_picture(stream: Meter, head: bytes) -> Opened:
    """Read a picture in one of `FORMATS` from a stream that starts with `head`.

    Raises:
        DataError: It is none, or one that is not read; the text is a predicate.
        Exception: Any that decoders raise for damaged files.
    """
    tiff = TiffKind(stream) if is_tiff(head) else None
    scale = tiff.scale() if tiff else SIXTEEN_BITS
    image = None
    with suppress(UnidentifiedImageError):
        image = Image.open(cast(BinaryIO, stream), formats=FORMATS)
    if image is None:
        raise tiff.refusal() if tiff else DataError(_describe(head))
    stream.begin_pixels()
    # A phone's JPEG may have a preview behind the photograph. To count frames would read all of them.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise DataError("has several frames, and a radiograph is one: save the one that you mean as its own file.")
    require_size(*image.size)
    require_depth(image, head)
    _require_bounds(image, stream, head, tiff.tile if tiff else 0)
    storage, deep = Storage(image.mode, str(image.format)), is_deep(image)
    turned = _orientation(image) in _UPRIGHT
    grey, depth_notes = to_grey(read_scaled(image, stream), scale, deep)
    notes = [*depth_notes, *(["it was turned upright as its EXIF orientation says"] if turned else [])]
    # Of a TIFF the orientation is 1 now: Pillow turns that when it loads it.
    if turned and (orientation := _orientation(image)) in _UPRIGHT:
        grey = grey.transpose(_UPRIGHT[orientation])
    return Opened(grey, notes, storage, shallow=bool(depth_notes))


def _require_bounds(image: Image.Image, stream: Meter, head: bytes, tile: int) -> None:
    """Raise a DataError for a picture whose decoding would take too much memory or time."""
    scans = Scans(1, 0)
    jpeg, plain = image.format in ("JPEG", "MPO"), image.format == "PPM" and head[1:2] in b"123"
    if jpeg or plain or is_jpeg2000(head):
        position = stream.tell()
        stream.seek(0)
        content = stream.read()
        stream.seek(position)
        if jpeg:
            scans = inspect_scans(content)
        elif plain:
            require_few_comments(content)
        elif require_structure(content)[:2] != image.size:
            raise DataError(f"is a damaged JPEG 2000: {INTACT}.")
    require_memory(picture_bytes(image, stream.size, tile, scans))
    slow = any(tile[0] in _SLOW for tile in getattr(image, "tile", ()))
    if slow and image.width * image.height > _MOST_PLAIN:
        raise DataError(f"is stored in a rare way, which is read up to {_MOST_PLAIN:,} pixels: save it as PNG.")


def _orientation(image: Image.Image) -> int:
    """Return how a photograph's data ask viewers to turn it; 1 where they are damaged."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation)
        return found if found in _UPRIGHT else 1
    except (struct.error, KeyError, SyntaxError, TypeError, ValueError):
        return 1


def _describe(head: bytes) -> str:
    """Describe a file that starts with these bytes and that is in none of `FORMATS`."""
    if found := [what for start, what in _OTHERS.items() if head.startswith(start)]:
        return found[0]
    if head[4:8] == b"ftyp":
        return "is a film or photograph in a format that is not read, such as HEIC or AVIF: save it as JPEG or PNG."
    if _is_text(head):
        return "is text, not a picture."
    return (
        f"is no picture in a format that is read ({', '.join(FORMATS[:-1])}, PGM or DICOM), or damaged at its "
        f"beginning: {INTACT}, or save it as PNG."
    )


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # its last character may be cut
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter.isspace() for letter in text)
