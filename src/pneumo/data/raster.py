"""The reader of raster formats (JPEG, PNG, TIFF, BMP and others): a bounded grey image, or the reason against it."""

import codecs
import struct
from typing import BinaryIO, NamedTuple, cast

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL import TiffImagePlugin as Tags

from pneumo.data.decoder_limits import Meter, picture_bytes, require_memory
from pneumo.data.grey import SIXTEEN_BITS, Scale, is_deep, look_up, require_depth, require_size, to_grey
from pneumo.data.jpeg import is_jpeg2000, require_few_scans, require_structure
from pneumo.errors import DataError

# What docs/PREDICTION.md lists. Pillow's other decoders are slow, unbounded, or start programs; MPO comes with JPEG.
FORMATS = ("JPEG", "PNG", "TIFF", "JPEG2000", "BMP", "WEBP", "GIF", "PPM")
INTACT = "replace it by an intact copy"
_OTHERS = {  # what else is often among films, by the bytes that such files start with
    b"PK\x03\x04": "is a ZIP archive: unpack it first.",
    b"\x1f\x8b": "is compressed by gzip: unpack it first.",
    b"%PDF": "is a PDF document: save its picture as PNG.",
    b"\xff\xd8\xff": f"is a damaged JPEG: {INTACT}.",
    b"\x89PNG": f"is a damaged PNG: {INTACT}.",
    **dict.fromkeys((b"%!PS", b"\xc5\xd0\xd3\xc6"), "is a drawing, not a picture of pixels: save it as PNG."),
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
_MOST_COMMENTS = 1000
_COLOURS = {  # photometric interpretation: name, channels, bits of each
    0: ("MinIsWhite", 1, (1, 2, 4, 8, 16)),
    1: ("MinIsBlack", 1, (1, 2, 4, 8, 12, 16)),
    2: ("RGB", 3, (8, 16)),
    3: ("palette", 1, (1, 2, 4, 8)),
    5: ("CMYK", 4, (8, 16)),
    6: ("YCbCr", 3, (8,)),
}
_SAMPLE_FORMATS = {1: "unsigned", 2: "signed", 3: "floating-point"}
_DAMAGED = f"is a damaged TIFF: {INTACT}."
_NUMBERS = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}  # bytes by type
_MOST_VALUES = 500_000  # 30 million pixels in tiles of 16 x 16 have 234,375 offsets and sizes
_PREMULTIPLIED, _PLANAR, _UNCOMPRESSED = 1, 2, 1


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

    A DataError's text is a predicate; damaged files raise any exception of a decoder.
    """
    tiff = _TiffKind(stream) if head.startswith(tuple(Tags.PREFIXES)) else None
    scale = tiff.scale() if tiff else SIXTEEN_BITS
    try:
        image: Image.Image = Image.open(cast(BinaryIO, stream), formats=FORMATS)
    except UnidentifiedImageError:
        raise (tiff.refusal() if tiff else DataError(_describe(head))) from None
    stream.begin_pixels()
    # A phone's JPEG may have a preview behind the photograph. To count frames would read all of them.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise DataError("has several frames, and a radiograph is one: save the one that you mean as its own file.")
    require_size(*image.size)
    require_depth(image, head)
    _require_bounds(image, stream, head, tiff.tile if tiff else 0)
    storage, deep = Storage(image.mode, str(image.format)), is_deep(image)
    turned = _orientation(image) in _UPRIGHT
    grey, depth_notes = to_grey(_read_scaled(image, stream), scale, deep)
    notes = [*depth_notes, *(["it was turned upright as its EXIF orientation says"] if turned else [])]
    # Of a TIFF the orientation is 1 now: Pillow turns that when it loads it.
    if turned and (orientation := _orientation(image)) in _UPRIGHT:
        grey = grey.transpose(_UPRIGHT[orientation])
    return Opened(grey, notes, storage, shallow=bool(depth_notes))


def _require_bounds(image: Image.Image, stream: Meter, head: bytes, tile: int) -> None:
    """Raise a DataError for a picture whose decoding would take too much memory or time."""
    buffered = 0.0
    jpeg, plain = image.format in ("JPEG", "MPO"), image.format == "PPM" and head[1:2] in b"123"
    if jpeg or plain or is_jpeg2000(head):
        position = stream.tell()
        stream.seek(0)
        content = stream.read()
        stream.seek(position)
        if jpeg:
            buffered = require_few_scans(content)
        elif plain and content.count(b"#") > _MOST_COMMENTS:  # Pillow copies a block for each
            raise DataError(f"is a PGM or PPM with more than {_MOST_COMMENTS:,} comments: save it as PNG.")
        elif not plain and require_structure(content)[:2] != image.size:
            raise DataError(f"is a damaged JPEG 2000: {INTACT}.")
    require_memory(picture_bytes(image, stream.size, tile, buffered))
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


def _read_scaled(image: Image.Image, stream: Meter) -> Image.Image:
    """Decode a PGM or PPM, not loaded yet, whose values have to be scaled as Pillow does; return any other as it is."""
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


class _TiffKind:
    """How a TIFF stores its first image, by its tags."""

    def __init__(self, stream: Meter) -> None:
        """Read the tags; damaged ones raise a DataError or any exception of Pillow's."""
        head = stream.read(16)
        if head.startswith(b"MM\0\x2b"):
            raise DataError("is a big-endian BigTIFF, which is not read: save it as PNG.")
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
        """Return the meaning of the values; raise a DataError if Pillow would decode them wrongly, or not at all."""
        if self.photometric is None:
            raise DataError("is a TIFF that does not say whether 0 is black or white: save it as PNG.")
        _, colours, depths = _COLOURS.get(self.photometric, ("", 0, ()))
        if self.formats != {1} or len(self.bits) != 1 or not self.bits <= set(depths):
            raise self.refusal()
        (bits,) = self.bits
        further = self.channels - colours
        wrong = [
            # Pillow knows planes only as single letters of its names: "L" for "L;I", and "I" for "I;16".
            self.planar and (bits != 8 or further > 0 or self.photometric == 0),
            self.photometric == 0 and further > 0,
            self.photometric == 1 and further > 0 and (bits != 8 or _PREMULTIPLIED in self.extra),
            bits == 12 and self.compressed,
            self.photometric == 3 and max(self.palette, default=0) < 256,  # colours of 8 bits, which come out black
        ]
        if any(wrong):
            raise self.refusal()
        return Scale(4095 if bits == 12 else 65535, inverted=self.photometric == 0)

    def refusal(self) -> DataError:
        """Return the error that names the kind."""
        form = " and ".join(_SAMPLE_FORMATS.get(form, "unusual") for form in sorted(self.formats))
        bits = " and ".join(map(str, sorted(self.bits)))
        colours = _COLOURS[self.photometric][0] if self.photometric in _COLOURS else f"colours {self.photometric}"
        channels = f"{self.channels}{' planar' if self.planar else ''} channel{'' if self.channels == 1 else 's'}"
        return DataError(
            f"is a TIFF of a kind that is not read ({channels} of {form} {bits}-bit values, {colours}): save it as "
            "PNG, grey, with unsigned values of 8 or 16 bits."
        )


def _require_short_directory(stream: Meter, start: int, order: str, big: bool) -> None:
    """Raise a DataError for a directory with more values, or bytes, than the file of one image needs.

    Pillow makes a Python number of each value, and copies what several tags refer to for each of them.
    """
    stream.seek(start)
    size = 8 if big else 2
    if len(head := stream.read(size)) < size:
        raise DataError(_DAMAGED)
    (count,) = struct.unpack(order + ("Q" if big else "H"), head)
    entry = struct.Struct(order + ("HHQ8x" if big else "HHI4x"))
    content = stream.read(min(count, 65_535) * entry.size)
    entries = list(entry.iter_unpack(content[: len(content) // entry.size * entry.size]))
    values = sum(number for _, kind, number in entries if kind in _NUMBERS)
    data = sum(number * _NUMBERS.get(kind, 1) for _, kind, number in entries)
    if values > _MOST_VALUES or data > stream.size + 12 * len(entries):
        raise DataError("is a TIFF of more tags, strips or tiles than a radiograph has: save it as PNG.")
