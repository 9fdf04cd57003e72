"""Reader of raster formats (JPEG, PNG, TIFF, BMP and others) with bounded memory and time."""

import codecs
import struct
from typing import BinaryIO, NamedTuple, cast

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL import TiffImagePlugin as Tags

from pneumo.data.decoder_limits import LimitedStream, raster_bytes, require_memory
from pneumo.data.grey import SIXTEEN_BITS, Scale, is_deep, look_up, require_depth, require_size, to_grey
from pneumo.data.jpeg import is_jpeg2000, require_few_scans, require_structure
from pneumo.errors import DataError

# Documented in docs/INFERENCE.md. Pillow's other decoders are slow, unbounded or start programs; JPEG includes MPO.
FORMATS = ("JPEG", "PNG", "TIFF", "JPEG2000", "BMP", "WEBP", "GIF", "PPM")
INTACT = "replace it with an intact copy"
_UNSUPPORTED = {  # message by file signature
    b"PK\x03\x04": "is a ZIP archive: unpack it first.",
    b"\x1f\x8b": "is compressed with gzip: unpack it first.",
    b"%PDF": "is a PDF document: save its image as PNG.",
    b"\xff\xd8\xff": f"is a damaged JPEG: {INTACT}.",
    b"\x89PNG": f"is a damaged PNG: {INTACT}.",
    **dict.fromkeys((b"%!PS", b"\xc5\xd0\xd3\xc6"), "is a vector drawing: save it as PNG."),
}
_TRANSPOSES = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SLOW_DECODERS = ("bmp_rle", "ppm_plain")  # implemented by Pillow in Python
_MAX_SLOW_PIXELS = 4_000_000  # take about 5 s
_MAX_COMMENTS = 1000
_PHOTOMETRIC = {  # by photometric interpretation: name, channels, bits per channel
    0: ("MinIsWhite", 1, (1, 2, 4, 8, 16)),
    1: ("MinIsBlack", 1, (1, 2, 4, 8, 12, 16)),
    2: ("RGB", 3, (8, 16)),
    3: ("palette", 1, (1, 2, 4, 8)),
    5: ("CMYK", 4, (8, 16)),
    6: ("YCbCr", 3, (8,)),
}
_SAMPLE_FORMATS = {1: "unsigned", 2: "signed", 3: "floating-point"}
_DAMAGED = f"is a damaged TIFF: {INTACT}."
_TYPE_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}  # of numeric types
_MAX_TAG_VALUES = 500_000  # 30 million pixels in tiles of 16 x 16 have 234,375 offsets and sizes
_PREMULTIPLIED, _PLANAR, _UNCOMPRESSED = 1, 2, 1


class Storage(NamedTuple):
    """Mode and format of an image file."""

    mode: str  # Pillow's mode, such as L, RGB or I;16
    format: str  # Pillow's format name, such as JPEG, or DICOM


class OpenedImage(NamedTuple):
    """A decoded image with notes and storage."""

    image: Image.Image  # 8-bit greyscale
    notes: list[str]  # reasons to doubt the image
    storage: Storage
    low_depth: bool = False  # whether a note already explains a low contrast


def read_raster(stream: LimitedStream, head: bytes) -> OpenedImage:
    """Read an image in one of `FORMATS` from a stream that starts with `head`.

    The text of a DataError is a predicate, such as `is a ZIP archive`. Damaged files raise any exception of a decoder.
    """
    tiff = _TiffLayout(stream) if head.startswith(tuple(Tags.PREFIXES)) else None
    scale = tiff.scale() if tiff else SIXTEEN_BITS
    try:
        image: Image.Image = Image.open(cast(BinaryIO, stream), formats=FORMATS)
    except UnidentifiedImageError:
        raise (tiff.unsupported() if tiff else DataError(_describe_unsupported(head))) from None
    stream.begin_pixels()
    # JPEGs of phones may contain a preview after the photograph. Counting frames would read all of them.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise DataError("has several frames, but a radiograph has one: save the right frame as its own file.")
    require_size(*image.size)
    require_depth(image, head)
    _require_bounds(image, stream, head, tiff.tile if tiff else 0)
    storage, deep = Storage(image.mode, str(image.format)), is_deep(image)
    reoriented = _orientation(image) in _TRANSPOSES
    grey, depth_notes = to_grey(_read_scaled(image, stream), scale, deep)
    notes = [*depth_notes, *(["rotated or flipped according to the EXIF orientation"] if reoriented else [])]
    # Pillow has already reoriented a TIFF when loading it, which sets the orientation to 1.
    if reoriented and (orientation := _orientation(image)) in _TRANSPOSES:
        grey = grey.transpose(_TRANSPOSES[orientation])
    return OpenedImage(grey, notes, storage, low_depth=bool(depth_notes))


def _require_bounds(image: Image.Image, stream: LimitedStream, head: bytes, tile: int) -> None:
    """Raise a DataError for an image that needs too much memory or time to decode."""
    buffered = 0.0
    jpeg, plain = image.format in ("JPEG", "MPO"), image.format == "PPM" and head[1:2] in b"123"
    if jpeg or plain or is_jpeg2000(head):
        position = stream.tell()
        stream.seek(0)
        content = stream.read()
        stream.seek(position)
        if jpeg:
            buffered = require_few_scans(content)
        elif plain and content.count(b"#") > _MAX_COMMENTS:  # Pillow copies a block for each
            raise DataError(f"is a PGM or PPM with more than {_MAX_COMMENTS:,} comments: save it as PNG.")
        elif not plain and require_structure(content)[:2] != image.size:
            raise DataError(f"is a damaged JPEG 2000: {INTACT}.")
    require_memory(raster_bytes(image, stream.size, tile, buffered))
    slow = any(tile[0] in _SLOW_DECODERS for tile in getattr(image, "tile", ()))
    if slow and image.width * image.height > _MAX_SLOW_PIXELS:
        raise DataError(f"has an encoding that is limited to {_MAX_SLOW_PIXELS:,} pixels: save it as PNG.")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1 if it is missing or damaged."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
        return orientation if orientation in _TRANSPOSES else 1
    except (struct.error, KeyError, SyntaxError, TypeError, ValueError):
        return 1


def _describe_unsupported(head: bytes) -> str:
    if descriptions := [description for start, description in _UNSUPPORTED.items() if head.startswith(start)]:
        return descriptions[0]
    if head[4:8] == b"ftyp":
        return "is a video or photograph in an unsupported format, such as HEIC or AVIF: save it as JPEG or PNG."
    if _is_text(head):
        return "is text, not an image."
    return (
        f"is not an image in a supported format ({', '.join(FORMATS[:-1])}, PGM or DICOM), or its beginning is "
        f"damaged: {INTACT}, or save it as PNG."
    )


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be incomplete
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character.isspace() for character in text)


def _read_scaled(image: Image.Image, stream: LimitedStream) -> Image.Image:
    """Decode a PGM or PPM, not loaded yet, and scale its values like Pillow; return other images unchanged."""
    if image.format != "PPM" or image.tile[0][0] != "ppm":  # type: ignore[attr-defined] # an ImageFile
        return image
    _, _, offset, (*_, largest) = image.tile[0]  # type: ignore[attr-defined] # an ImageFile
    deep, bands = image.mode == "I", len(image.getbands())
    stored, white = (">u2" if largest > 255 else "u1"), 65535 if deep else 255
    stream.seek(offset)
    size = image.width * image.height * bands
    codes = np.frombuffer(stream.read(size * np.dtype(stored).itemsize), stored)
    if codes.size != size:
        raise DataError("is truncated: it has fewer pixels than its header says. Replace it with an intact copy.")
    table = np.rint(np.arange(65536) / largest * white).clip(max=white).astype(np.uint16 if deep else np.uint8)
    shape = (image.height, image.width, bands)
    return Image.fromarray(look_up(table, codes).reshape(shape[: 3 if bands > 1 else 2]))


class _TiffLayout:
    """Layout of the first image of a TIFF, from its tags."""

    def __init__(self, stream: LimitedStream) -> None:
        """Read the tags; damaged tags raise a DataError or any exception of Pillow."""
        head = stream.read(16)
        if head.startswith(b"MM\0\x2b"):
            raise DataError("is a big-endian BigTIFF, which is not supported: save it as PNG.")
        big = head[2:4] in (b"\x2b\0", b"\0\x2b")
        tags = Tags.ImageFileDirectory_v2(head if big else head[:8])
        _require_short_directory(stream, tags.next, "<" if head[0] == ord("I") else ">", big)
        stream.seek(tags.next)
        tags.load(cast(BinaryIO, stream))
        if Tags.IMAGEWIDTH not in tags:
            raise DataError(_DAMAGED)
        self.channels = int(tags.get(Tags.SAMPLESPERPIXEL, 1))
        self.bits = {int(bits) for bits in tags.get(Tags.BITSPERSAMPLE, (1,))}
        self.formats = {int(form) for form in tags.get(Tags.SAMPLEFORMAT, (1,))}
        self.photometric = tags.get(Tags.PHOTOMETRIC_INTERPRETATION)
        self.planar = tags.get(Tags.PLANAR_CONFIGURATION) == _PLANAR
        self.extra = tuple(tags.get(Tags.EXTRASAMPLES, ()))
        self.compressed = tags.get(Tags.COMPRESSION, _UNCOMPRESSED) != _UNCOMPRESSED
        self.palette = tuple(tags.get(Tags.COLORMAP, ()))
        self.tile = 0  # bytes of a decoded tile or strip
        if self.compressed:
            width, height = int(tags[Tags.IMAGEWIDTH]), int(tags.get(Tags.IMAGELENGTH, 1))
            wide = int(tags.get(Tags.TILEWIDTH, width))
            high = int(tags.get(Tags.TILELENGTH, min(height, int(tags.get(Tags.ROWSPERSTRIP, height)))))
            self.tile = wide * high * self.channels * max(self.bits) // 8
        stream.seek(0)

    def scale(self) -> Scale:
        """Return the range of the values; raise a DataError if Pillow cannot decode them correctly."""
        if self.photometric is None:
            raise DataError("is a TIFF that does not declare whether 0 is black or white: save it as PNG.")
        _, colours, depths = _PHOTOMETRIC.get(self.photometric, ("", 0, ()))
        if self.formats != {1} or len(self.bits) != 1 or not self.bits <= set(depths):
            raise self.unsupported()
        (bits,) = self.bits
        extra = self.channels - colours
        unsupported = [
            # Pillow shortens the raw modes of planes to one letter: "L" for "L;I", and "I" for "I;16".
            self.planar and (bits != 8 or extra > 0 or self.photometric == 0),
            self.photometric == 0 and extra > 0,
            self.photometric == 1 and extra > 0 and (bits != 8 or _PREMULTIPLIED in self.extra),
            bits == 12 and self.compressed,
            self.photometric == 3 and max(self.palette, default=0) < 256,  # 8-bit colours, which Pillow reads as black
        ]
        if any(unsupported):
            raise self.unsupported()
        return Scale(4095 if bits == 12 else 65535, inverted=self.photometric == 0)

    def unsupported(self) -> DataError:
        """Return an error that describes the unsupported layout."""
        form = " and ".join(_SAMPLE_FORMATS.get(form, "unusual") for form in sorted(self.formats))
        bits = " and ".join(map(str, sorted(self.bits)))
        colours = f"photometric interpretation {self.photometric}"
        if self.photometric in _PHOTOMETRIC:
            colours = _PHOTOMETRIC[self.photometric][0]
        channels = f"{self.channels}{' planar' if self.planar else ''} channel{'' if self.channels == 1 else 's'}"
        return DataError(
            f"is a TIFF of an unsupported kind ({channels} of {form} {bits}-bit values, {colours}): save it as "
            "greyscale PNG with 8 or 16 bits."
        )


def _require_short_directory(stream: LimitedStream, start: int, order: str, big: bool) -> None:
    """Raise a DataError for a directory with more values or bytes than one image needs.

    Pillow creates a Python number for each value, and copies data once for every tag that refers to it.
    """
    stream.seek(start)
    size = 8 if big else 2
    if len(head := stream.read(size)) < size:
        raise DataError(_DAMAGED)
    (count,) = struct.unpack(order + ("Q" if big else "H"), head)
    entry = struct.Struct(order + ("HHQ8x" if big else "HHI4x"))
    content = stream.read(min(count, 65_535) * entry.size)
    entries = list(entry.iter_unpack(content[: len(content) // entry.size * entry.size]))
    values = sum(count for _, kind, count in entries if kind in _TYPE_BYTES)
    data = sum(count * _TYPE_BYTES.get(kind, 1) for _, kind, count in entries)
    if values > _MAX_TAG_VALUES or data > stream.size + 12 * len(entries):
        raise DataError("is a TIFF with more tags, strips or tiles than a radiograph needs: save it as PNG.")
