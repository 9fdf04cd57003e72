"""Checks of compressed codestreams in DICOM files, and the decoder of RLE (PS3.5, annex G)."""

import io
import struct
from typing import NamedTuple

from PIL import Image
from pydicom import uid
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder

from pneumo.data.jpeg import is_jpeg2000, require_few_scans, require_structure
from pneumo.errors import DataError

NAME = "pneumo"
DECODER_DEPENDENCIES: dict[str, tuple[str, ...]] = {uid.RLELossless: ()}  # pydicom reads it from each plugin
_MOST_DECODED = 1 << 26  # bytes: 30 million pixels of 16 bits take 4 s
_HEADER = struct.Struct("<16L")
_MOST_EMPTY = 1000  # controls of a segment that stand for no bytes
ITEM = b"\xfe\xff\x00\xe0"  # compressed pixels are a sequence of items, of which the first is a table of offsets
_MOST_ITEMS = 10_000
_MOST_OFFSETS = 4096  # bytes: one image needs 4 at most
# By the marker that starts a JPEG's frame.
_JPEG = {
    0xC0: (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit),
    0xC1: (uid.JPEGExtended12Bit, uid.JPEGBaseline8Bit),
    0xC2: (uid.JPEGBaseline8Bit,),  # progressive: retired from DICOM, but decoders of the baseline read it
    0xC3: (uid.JPEGLosslessSV1, uid.JPEGLossless),
    0xF7: (uid.JPEGLSLossless, uid.JPEGLSNearLossless),
}
_JPEG_2000 = (uid.JPEG2000, uid.JPEG2000Lossless, uid.HTJ2K, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL)


class Codestream(NamedTuple):
    """What the header of a compressed image holds, as far as it is known."""

    syntaxes: tuple[uid.UID, ...] = ()  # that it may have, the usual one first
    shape: tuple[int, int, int] | None = None  # rows, columns and samples per pixel
    bits: int | None = None  # precision of the samples


def inspect_codestream(frame: bytes) -> Codestream:
    """Read a compressed frame's own header (ISO/IEC 10918-1 B.2.2, 14495-1, 15444-1 A.5.1; DICOM PS3.5 G.5)."""
    if frame.startswith(b"\xff\xd8"):
        return _inspect_jpeg(frame)
    if frame.startswith(b"\xff\x4f\xff\x51") and len(frame) > 42:
        right, lower, left, upper = (int.from_bytes(frame[at : at + 4], "big") for at in range(8, 24, 4))
        shape = (lower - upper, right - left, int.from_bytes(frame[40:42], "big"))
        return Codestream(_JPEG_2000, shape, (frame[42] & 0x7F) + 1)
    if frame.startswith(b"\0\0\0\x0cjP  "):
        return Codestream(_JPEG_2000)
    if 1 <= int.from_bytes(frame[:4], "little") <= 15 and frame[4:8] == b"\x40\0\0\0":
        return Codestream((uid.RLELossless,))  # the number of segments, and the first one behind this table of 64 bytes
    return Codestream()


def _inspect_jpeg(frame: bytes) -> Codestream:
    at = 2
    while frame[at : at + 1] == b"\xff" and at + 9 < len(frame):
        if syntaxes := _JPEG.get(frame[at + 1]):
            rows, columns = (int.from_bytes(frame[start : start + 2], "big") for start in (at + 5, at + 7))
            shape = (rows, columns, frame[at + 9]) if rows else None  # a JPEG may tell its height at its end
            return Codestream(syntaxes, shape, frame[at + 4])
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return Codestream()


def require_few_items(content: bytes) -> None:
    """Raise a DataError for compressed pixels in more fragments, or with a larger table of offsets, than an image's."""
    at = 0
    for number in range(_MOST_ITEMS):
        if content[at : at + 4] != ITEM:
            return
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        if number == 0 and size > _MOST_OFFSETS:
            break
        at += 8 + size
    raise DataError("has its compressed pixels in more fragments than an image's: export it again.")


def require_bounds(frame: bytes, size: tuple[int, int]) -> int:
    """Return the bytes that a frame's decoder holds next to the image of `size`, width and height."""
    if is_jpeg2000(frame[:12]):
        *found, components = require_structure(frame)
        buffered = 6 * components * size[0] * size[1]
    elif frame.startswith(b"\xff\xd8"):
        buffered = int(require_few_scans(frame) * size[0] * size[1])
        try:
            found = [*Image.open(io.BytesIO(frame), formats=("JPEG",)).size]  # as its own parser reads them
        except (OSError, Image.DecompressionBombError):  # such as for lossless JPEG, which others decode
            return buffered
    else:
        return 0
    if tuple(found) != size:
        raise DataError("has a compressed image of another size than its Rows and Columns say: export it again.")
    return buffered


def is_available(syntax: str) -> bool:
    """Return whether a transfer syntax is decoded; pydicom calls this of each plugin."""
    return syntax == uid.RLELossless


def require_decodable(size: int) -> None:
    """Raise a DataError for pixels that take too long to decode in Python."""
    if size > _MOST_DECODED:
        raise DataError(
            f"has {size:,} bytes of pixels in RLE, and {_MOST_DECODED:,} are the most: save it uncompressed."
        )


def decode_frame(source: bytes, runner: DecodeRunner) -> bytearray:
    """Decode a frame to little-endian samples, plane after plane.

    pydicom's own decoder decodes segments to their ends, however long, before it compares sizes.
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


get_decoder(uid.RLELossless).add_plugin(NAME, (__name__, decode_frame.__name__))
