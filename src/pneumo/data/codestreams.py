"""Compressed images by their first bytes: the DICOM transfer syntaxes that they may have, their size and precision."""

from typing import NamedTuple

from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

# By the marker that starts a JPEG's frame.
_JPEG = {
    0xC0: (JPEGBaseline8Bit, JPEGExtended12Bit),
    0xC1: (JPEGExtended12Bit, JPEGBaseline8Bit),
    0xC2: (JPEGBaseline8Bit,),  # progressive: retired from DICOM, but decoders of the baseline read it
    0xC3: (JPEGLosslessSV1, JPEGLossless),
    0xF7: (JPEGLSLossless, JPEGLSNearLossless),
}
_JPEG_2000 = (JPEG2000, JPEG2000Lossless, HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL)


class Codestream(NamedTuple):
    """What a compressed image says about itself.

    Attributes:
        syntaxes: The transfer syntaxes that it may have, the usual one first; empty if unknown.
        shape: Rows, columns and samples per pixel; None if unknown.
        bits: Precision of the samples; None if unknown.
    """

    syntaxes: tuple[UID, ...] = ()
    shape: tuple[int, int, int] | None = None
    bits: int | None = None


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
        return Codestream((RLELossless,))  # the number of segments, and the first one behind this table of 64 bytes
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
