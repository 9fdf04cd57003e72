"""Checks of compressed codestreams in DICOM files, and a decoder of RLE (PS3.5, annex G)."""

import io
import struct
from typing import NamedTuple

from PIL import Image
from pydicom import uid
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder

from pneumo.data.jpeg import is_jpeg2000, require_few_scans, require_structure
from pneumo.errors import DataError

PLUGIN_NAME = "pneumo"  # of the RLE decoder, in pydicom
DECODER_DEPENDENCIES: dict[str, tuple[str, ...]] = {uid.RLELossless: ()}  # pydicom reads this name in every plugin
_MAX_RLE_BYTES = 1 << 26  # decoded; 30 million 16-bit pixels take 4 s
_HEADER = struct.Struct("<16L")
_MAX_NOOPS = 1000  # control bytes per segment that produce no output
ITEM = b"\xfe\xff\x00\xe0"  # compressed pixels are a sequence of items; the first is a table of offsets
_MAX_ITEMS = 10_000
_MAX_OFFSET_BYTES = 4096  # one image needs at most 4
# Transfer syntaxes by the marker that starts the frame of a JPEG.
_JPEG = {
    0xC0: (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit),
    0xC1: (uid.JPEGExtended12Bit, uid.JPEGBaseline8Bit),
    0xC2: (uid.JPEGBaseline8Bit,),  # progressive: retired from DICOM, but baseline decoders read it
    0xC3: (uid.JPEGLosslessSV1, uid.JPEGLossless),
    0xF7: (uid.JPEGLSLossless, uid.JPEGLSNearLossless),
}
_JPEG_2000 = (uid.JPEG2000, uid.JPEG2000Lossless, uid.HTJ2K, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL)


class Codestream(NamedTuple):
    """Properties from the header of a compressed image; None or empty if unknown."""

    syntaxes: tuple[uid.UID, ...] = ()  # possible transfer syntaxes, the most common one first
    shape: tuple[int, int, int] | None = None  # rows, columns and samples per pixel
    bits: int | None = None  # precision of the samples


def inspect_codestream(frame: bytes) -> Codestream:
    """Parse the header of a compressed frame (ISO/IEC 10918-1 B.2.2, 14495-1, 15444-1 A.5.1; DICOM PS3.5 G.5)."""
    if frame.startswith(b"\xff\xd8"):
        return _inspect_jpeg(frame)
    if frame.startswith(b"\xff\x4f\xff\x51") and len(frame) > 42:
        right, lower, left, upper = (int.from_bytes(frame[offset : offset + 4], "big") for offset in range(8, 24, 4))
        shape = (lower - upper, right - left, int.from_bytes(frame[40:42], "big"))
        return Codestream(_JPEG_2000, shape, (frame[42] & 0x7F) + 1)
    if frame.startswith(b"\0\0\0\x0cjP  "):
        return Codestream(_JPEG_2000)
    if 1 <= int.from_bytes(frame[:4], "little") <= 15 and frame[4:8] == b"\x40\0\0\0":
        return Codestream((uid.RLELossless,))  # the number of segments, and the first offset after a 64-byte table
    return Codestream()


def _inspect_jpeg(frame: bytes) -> Codestream:
    offset = 2
    while frame[offset : offset + 1] == b"\xff" and offset + 9 < len(frame):
        if syntaxes := _JPEG.get(frame[offset + 1]):
            rows, columns = (int.from_bytes(frame[start : start + 2], "big") for start in (offset + 5, offset + 7))
            shape = (rows, columns, frame[offset + 9]) if rows else None  # a JPEG may declare its height at the end
            return Codestream(syntaxes, shape, frame[offset + 4])
        offset += 2 + int.from_bytes(frame[offset + 2 : offset + 4], "big")
    return Codestream()


def require_few_items(content: bytes) -> None:
    """Raise a DataError for compressed pixels with more fragments or offsets than one image needs."""
    offset = 0
    for index in range(_MAX_ITEMS):
        if content[offset : offset + 4] != ITEM:
            return
        size = int.from_bytes(content[offset + 4 : offset + 8], "little")
        if index == 0 and size > _MAX_OFFSET_BYTES:
            break
        offset += 8 + size
    raise DataError("has compressed pixels in more fragments than one image needs: export it again.")


def require_bounds(frame: bytes, size: tuple[int, int]) -> int:
    """Return the number of bytes that a decoder holds in addition to an image of `size` (width, height).

    Raises:
        DataError: The frame has another size, or needs too much memory or time to decode.
    """
    if is_jpeg2000(frame[:12]):
        *declared, components = require_structure(frame)
        buffered = 6 * components * size[0] * size[1]
    elif frame.startswith(b"\xff\xd8"):
        buffered = int(require_few_scans(frame) * size[0] * size[1])
        try:
            declared = [*Image.open(io.BytesIO(frame), formats=("JPEG",)).size]  # as the decoder parses it
        except (OSError, Image.DecompressionBombError):  # such as lossless JPEG, which has other decoders
            return buffered
    else:
        return 0
    if tuple(declared) != size:
        raise DataError("has a compressed image whose size differs from its Rows and Columns: export it again.")
    return buffered


def is_available(syntax: str) -> bool:
    """Return whether this plugin decodes a transfer syntax; called by pydicom."""
    return syntax == uid.RLELossless


def require_decodable(size: int) -> None:
    """Raise a DataError if `size` bytes of pixels take too long to decode in Python."""
    if size > _MAX_RLE_BYTES:
        raise DataError(
            f"has {size:,} bytes of RLE pixels, but the maximum is {_MAX_RLE_BYTES:,}: save it uncompressed."
        )


def decode_frame(source: bytes, runner: DecodeRunner) -> bytearray:
    """Decode an RLE frame to little-endian samples, plane by plane.

    pydicom's own decoder would decode segments of any length completely before it compares sizes.
    """
    count, *offsets = _HEADER.unpack(source[: _HEADER.size])
    width, pixels = runner.bits_allocated // 8, runner.rows * runner.columns
    if count != runner.samples_per_pixel * width:
        raise DataError("has a number of RLE segments that contradicts its samples.")
    ends = [*offsets[1:count], len(source)]
    decoded = bytearray(pixels * count)
    for index, (start, end) in enumerate(zip(offsets, ends, strict=False)):
        plane, byte = divmod(index, width)
        low = plane * width * pixels + width - 1 - byte  # the most significant byte comes first
        decoded[low : (plane + 1) * width * pixels : width] = _decode_segment(source[start:end], pixels)
    runner.set_option("planar_configuration", 1)
    return decoded


def _decode_segment(segment: bytes, size: int) -> bytearray:
    decoded = bytearray()
    offset, noops = 0, 0
    while len(decoded) < size and offset < len(segment):
        control = segment[offset]
        if control < 128:
            decoded += segment[offset + 1 : offset + 2 + control]
            offset += 2 + control
        elif control > 128:
            decoded += segment[offset + 1 : offset + 2] * (257 - control)
            offset += 2
        else:
            offset, noops = offset + 1, noops + 1
            if noops > _MAX_NOOPS:
                break
    if len(decoded) < size:
        raise DataError("has an RLE segment that is shorter than the image.")
    return decoded[:size]


get_decoder(uid.RLELossless).add_plugin(PLUGIN_NAME, (__name__, decode_frame.__name__))
