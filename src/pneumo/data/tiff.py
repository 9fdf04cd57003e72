"""Checks of TIFF files: which kinds Pillow decodes correctly, and the reason against each other kind."""

import struct
from typing import BinaryIO, cast

from PIL import TiffImagePlugin as Tags

from pneumo.data.decoder_limits import Meter
from pneumo.data.grey import Scale
from pneumo.errors import DataError

_COLOURS = {  # photometric interpretation: name, channels, bits of each
    0: ("MinIsWhite", 1, (1, 2, 4, 8, 16)),
    1: ("MinIsBlack", 1, (1, 2, 4, 8, 12, 16)),
    2: ("RGB", 3, (8, 16)),
    3: ("palette", 1, (1, 2, 4, 8)),
    5: ("CMYK", 4, (8, 16)),
    6: ("YCbCr", 3, (8,)),
}
_FORMATS = {1: "unsigned", 2: "signed", 3: "floating-point"}
_DAMAGED = "is a damaged TIFF: replace it by an intact copy."
_NUMBERS = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}  # bytes by type
_MOST_VALUES = 500_000  # 30 million pixels in tiles of 16 x 16 have 234,375 offsets and sizes
_PREMULTIPLIED, _PLANAR, _UNCOMPRESSED = 1, 2, 1


def is_tiff(head: bytes) -> bool:
    """Return whether a file that starts with these bytes is a TIFF."""
    return head.startswith(tuple(Tags.PREFIXES))


class TiffKind:
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
        form = " and ".join(_FORMATS.get(form, "unusual") for form in sorted(self.formats))
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
