"""Uncompressed TIFF files of any layout."""

import struct
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Order = Literal["<", ">"]
_ROWS = 32  # per strip


def tiff(
    samples: NDArray[np.generic],
    photometric: int = 1,
    order: Order = "<",
    planar: bool = False,
    bits: int | None = None,
    tags: Mapping[int, Sequence[int]] | None = None,
) -> bytes:
    """Build a TIFF file.

    Args:
        samples: Shape (H, W) or (H, W, channels); the dtype determines the sample format and bits.
        photometric: 0 MinIsWhite, 1 MinIsBlack, 2 RGB, 3 palette, 5 CMYK.
        order: `<` little or `>` big endian.
        planar: Whether to store the channels one after another.
        bits: Bits per packed sample: 1, 2, 4 or 12.
        tags: Additional tags of 16-bit values, such as {338: [2]} for an alpha channel.
    """
    pixels = samples if samples.ndim == 3 else samples[..., None]
    height, width, channels = pixels.shape
    planes = np.split(pixels, channels, axis=2) if planar else [pixels]
    strips = [
        _bytes(plane[start : start + _ROWS], order, bits) for plane in planes for start in range(0, height, _ROWS)
    ]
    form = {"u": 1, "b": 1, "i": 2, "f": 3, "c": 6}[pixels.dtype.kind]
    fields: dict[int, tuple[str, Sequence[int]]] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [bits or 8 * pixels.dtype.itemsize] * channels),
        259: ("H", [1]),
        262: ("H", [photometric]),
        273: ("I", [8 + sum(map(len, strips[:index])) for index in range(len(strips))]),
        277: ("H", [channels]),
        278: ("I", [_ROWS]),
        279: ("I", [len(strip) for strip in strips]),
        284: ("H", [2 if planar else 1]),
        339: ("H", [form] * channels),
        **{tag: ("H", values) for tag, values in (tags or {}).items()},
    }
    content = b"".join(strips)
    content += bytes(len(content) % 2)
    directory = _directory(fields, 8 + len(content), order)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(content))
    return head + content + directory


def _directory(fields: Mapping[int, tuple[str, Sequence[int]]], start: int, order: str) -> bytes:
    beyond = start + 2 + 12 * len(fields) + 4
    entries, rest = b"", b""
    for tag, (kind, values) in sorted(fields.items()):
        data = struct.pack(f"{order}{len(values)}{kind}", *values)
        if len(data) > 4:
            value, rest = struct.pack(f"{order}I", beyond + len(rest)), rest + data
        else:
            value = data.ljust(4, b"\0")
        entries += struct.pack(f"{order}HHI", tag, {"H": 3, "I": 4}[kind], len(values)) + value
    return struct.pack(f"{order}H", len(fields)) + entries + bytes(4) + rest


def _bytes(strip: NDArray[np.generic], order: Order, bits: int | None) -> bytes:
    if bits is None:
        return strip.astype(strip.dtype.newbyteorder(order)).tobytes()
    digits = strip.reshape(len(strip), -1, 1).astype(np.int64) >> np.arange(bits - 1, -1, -1) & 1
    return np.packbits(digits.reshape(len(strip), -1).astype(np.uint8), axis=1).tobytes()
