"""RLE of DICOM (PS3.5, annex G), as a decoder of pydicom that stops where a segment is longer than the image."""

import struct

from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.uid import RLELossless

from pneumo.errors import DataError

NAME = "pneumo"
DECODER_DEPENDENCIES: dict[str, tuple[str, ...]] = {RLELossless: ()}
_MOST_DECODED = 1 << 26  # bytes: 30 million pixels of 16 bits take 4 s
_HEADER = struct.Struct("<16L")
_MOST_EMPTY = 1000  # controls of a segment that stand for no bytes


def is_available(uid: str) -> bool:
    """Return whether a transfer syntax is decoded."""
    return uid == RLELossless


def require_decodable(size: int) -> None:
    """Raise a DataError for pixels that take too long to decode in Python."""
    if size > _MOST_DECODED:
        raise DataError(
            f"has {size:,} bytes of pixels in RLE, and {_MOST_DECODED:,} are the most: save it uncompressed."
        )


def decode_frame(source: bytes, runner: DecodeRunner) -> bytearray:
    """Decode a frame to little-endian samples, plane after plane.

    pydicom's own decoder decodes segments to their ends, however long, before it compares sizes.

    Raises:
        DataError: Segments are missing or too short.
    """
    count, *offsets = _HEADER.unpack(source[: _HEADER.size])
    width, pixels = runner.bits_allocated // 8, runner.rows * runner.columns
    if count != runner.samples_per_pixel * width:
        raise DataError("has another number of RLE segments than its samples need.")
    ends = [*offsets[1:count], len(source)]
    decoded = bytearray(pixels * count)
    for number, (start, end) in enumerate(zip(offsets, ends, strict=False)):
        plane, byte = divmod(number, width)
        low = plane * width * pixels + width - 1 - byte  # the most significant byte comes first
        decoded[low : (plane + 1) * width * pixels : width] = _decode_segment(source[start:end], pixels)
    runner.set_option("planar_configuration", 1)
    return decoded


def _decode_segment(segment: bytes, size: int) -> bytearray:
    decoded = bytearray()
    at, empty = 0, 0
    while len(decoded) < size and at < len(segment):
        control = segment[at]
        if control < 128:
            decoded += segment[at + 1 : at + 2 + control]
            at += 2 + control
        elif control > 128:
            decoded += segment[at + 1 : at + 2] * (257 - control)
            at += 2
        else:
            at, empty = at + 1, empty + 1
            if empty > _MOST_EMPTY:
                break
    if len(decoded) < size:
        raise DataError("has an RLE segment that is shorter than the image.")
    return decoded[:size]


get_decoder(RLELossless).add_plugin(NAME, (__name__, decode_frame.__name__))
