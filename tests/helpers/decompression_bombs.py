"""Small files that are expensive to decode unless their declared sizes are checked first."""

import struct
import zlib
from collections.abc import Mapping

import numpy as np
from PIL import Image
from pydicom.uid import UID, JPEGBaseline8Bit, RLELossless

from helpers.damaged_images import encode_image, smooth_image
from helpers.dicom_files import dicom

GREY = smooth_image(np.random.default_rng(0))
DEEP = GREY.astype(np.uint16) * 257
COLOUR = Image.fromarray(np.dstack([GREY, GREY, np.roll(GREY, 9)]))
_SIDE = 13_000  # 169 million pixels, within the limits in 8-bit greyscale


def png(side: int, bits: int, colour: int, chunks: bytes = b"") -> bytes:
    """Build a PNG that declares a height and width of `side` pixels, with `chunks` before its few pixels."""
    header = struct.pack(">IIBBBBB", side, side, bits, colour, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(768)) if colour == 3 else b""
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + chunks + pixels + chunk(b"IEND", b"")


def chunk(kind: bytes, content: bytes) -> bytes:
    """Build a chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def tiff(tags: Mapping[int, tuple[int, int, int]], content: bytes, directories: int = 1) -> bytes:
    """Build a greyscale TIFF of 120 x 96 pixels.

    Args:
        tags: Type, count and value of additional tags.
        content: Bytes after the header of 8 bytes.
        directories: Number of chained directories.
    """
    fields = {256: (4, 1, 120), 257: (4, 1, 96), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 277: (3, 1, 1)}
    fields |= {273: (4, 1, 8), 278: (4, 1, 96), 279: (4, 1, 120 * 96)}
    entries = b"".join(struct.pack("<HHII", tag, *field) for tag, field in sorted({**fields, **tags}.items()))
    count = len(entries) // 12
    start, size = 8 + len(content), 6 + len(entries)
    ends = [start + number * size if number < directories else 0 for number in range(1, directories + 1)]
    chain = b"".join(struct.pack("<H", count) + entries + struct.pack("<I", end) for end in ends)
    return b"II*\0" + struct.pack("<I", start) + content + chain


def compressed_dicom(items: list[bytes], syntax: UID, pixels: np.ndarray = GREY) -> bytes:
    """Build a DICOM file with these items as compressed pixels; the first item is the table of offsets."""
    whole = dicom(pixels, syntax=syntax)
    start = whole.index(b"\xe0\x7f\x10\0OB\0\0") + 12
    body = b"".join(b"\xfe\xff\0\xe0" + struct.pack("<I", len(item)) + item for item in items)
    return whole[:start] + body + b"\xfe\xff\xdd\xe0\0\0\0\0"


def rle(*segments: bytes) -> bytes:
    """Build an RLE frame whose segments may overlap."""
    ends = np.cumsum([64, *map(len, segments)])
    offsets = [*ends[:-1].tolist(), *[0] * (15 - len(segments))]
    return struct.pack("<16I", len(segments), *offsets) + b"".join(segments)


def header_with(elements: bytes) -> bytes:
    """Build a DICOM file with additional header elements before the body part."""
    whole = dicom(GREY)
    start = whole.index(b"\x18\0\x15\0CS")
    return whole[:start] + elements + whole[start:]


def repeated_scan(times: int, **options: object) -> bytes:
    """Build a JPEG whose last scan is repeated."""
    plain = encode_image(GREY, "JPEG", **options)
    last = plain.rindex(b"\xff\xda")
    return plain[:-2] + plain[last:-2] * times + b"\xff\xd9"


def _large_jpeg() -> bytes:
    plain = encode_image(COLOUR, "JPEG", progressive=True, subsampling=0)
    offset = plain.index(b"\xff\xc2") + 5
    return plain[:offset] + struct.pack(">HH", _SIDE, _SIDE) + plain[offset + 4 :]


def jpeg2000(siz: Mapping[int, int], cod: Mapping[int, int] | None = None) -> bytes:
    """Build a JPEG 2000 codestream with 32-bit values in SIZ and bytes in COD replaced by offset."""
    content = bytearray(encode_image(GREY, "JPEG2000", no_jp2=True))
    for offset, number in siz.items():
        struct.pack_into(">I", content, 4 + offset, number)
    for offset, number in (cod or {}).items():
        content[content.index(b"\xff\x52") + offset] = number
    return bytes(content)


_SEQUENCE = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff"
_RUNS = b"\x81\x07" * 5000  # 128 bytes each; the image has only 90 of them
DECLARED = {  # large declared sizes without the pixels
    "png of 16-bit colour": png(_SIDE, 16, 2),
    "png with alpha": png(_SIDE, 8, 6),
    "png with a palette": png(_SIDE, 8, 3),
    "16-bit tiff": tiff({**dict.fromkeys((256, 257, 278), (4, 1, _SIDE)), 258: (3, 1, 16), 259: (3, 1, 8)}, bytes(999)),
    "tile of a tiff": tiff({259: (3, 1, 8), 322: (4, 1, 60_000), 323: (4, 1, 30_000)}, bytes(999)),
    "progressive jpeg": _large_jpeg(),
    "jpeg 2000": jpeg2000({4: _SIDE, 8: _SIDE, 20: _SIDE, 24: _SIDE}),
    "dicom": dicom(DEEP, Rows=_SIDE, Columns=_SIDE),
    "dicom in rle": dicom(DEEP, syntax=RLELossless, Rows=_SIDE, Columns=_SIDE),
}
PIECES = {  # many small parts, each of which costs a decoder much more time or memory than its size
    "tiff directories": (tiff({}, GREY.tobytes(), 4000), "several frames"),
    "tiff strips": (tiff({273: (4, 300_000, 8), 279: (4, 300_000, 8)}, bytes(1_200_000)), "tags, strips or tiles"),
    "tiff tags": (tiff({700 + i: (7, 50_000, 8) for i in range(9)}, bytes(50_000)), "tags, strips or tiles"),
    "png chunks": (png(100, 8, 0, chunk(b"prVt", b"") * 60_000), "more chunks"),
    "gif comments": (encode_image(GREY, "GIF").replace(b",", b"!\xfe" + b"\1a" * 60_000 + b"\0,", 1), "more chunks"),
    "pgm comments": (b"P2 120 96 255\n" + b"#\n" * 2000 + b"7 8 " * 5760, "more than 1,000 comments"),
    "scans": (repeated_scan(100, progressive=True), "more than 100 scans"),
    "scans of a baseline jpeg": (repeated_scan(100), "more than 100 scans"),
    "scans in dicom": (compressed_dicom([b"", repeated_scan(100)], JPEGBaseline8Bit), "more than 100 scans"),
    "fragments": (
        compressed_dicom([b"", encode_image(GREY, "JPEG"), *[b""] * 10_000], JPEGBaseline8Bit),
        "more fragments",
    ),
    "offsets": (compressed_dicom([bytes(5000), encode_image(GREY, "JPEG")], JPEGBaseline8Bit), "more fragments"),
    "elements": (header_with(b"\x09\0\x10\x10LO\0\0" * 110_000), "more chunks"),
    "items": (header_with(_SEQUENCE + b"\xfe\xff\0\xe0\0\0\0\0" * 60_000 + b"\xfe\xff\xdd\xe0\0\0\0\0"), "."),
    "nested items": (header_with((_SEQUENCE + b"\xfe\xff\0\xe0\xff\xff\xff\xff") * 2000), "."),
    "windows": (dicom(DEEP, WindowCenter=[1] * 33, WindowWidth=[1] * 33), "more than 32 windows"),
    "long element": (dicom(DEEP, WindowCenter=b"1\\" * 3000, WindowWidth="1"), "WindowCenter of more than 4,096 bytes"),
    "jpeg 2000 tiles": (jpeg2000({20: 1, 24: 1}), "smaller or more tiles"),
    "jpeg 2000 code-blocks": (jpeg2000({}, {10: 0, 11: 0}), "smaller or more tiles"),
    "jpeg 2000 precincts": (
        encode_image(np.tile(GREY, (10, 10)), "JPEG2000", precinct_size=(8, 8)),
        "smaller or more tiles",
    ),
    "jpeg 2000 layers": (jpeg2000({20: 9, 24: 9}, {6: 255}), "smaller or more tiles"),
    "rle": (compressed_dicom([b"", rle(b"\x80" * 5000 + _RUNS)], RLELossless), "damaged"),
}
