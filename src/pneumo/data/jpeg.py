"""Structural checks of JPEG and JPEG 2000 files, made before a decoder allocates memory."""

import re
import struct
from collections.abc import Iterator
from math import ceil
from typing import NamedTuple

from pneumo.errors import DataError

_MOST_SCANS = 100  # progressive JPEGs have 10, or 6 in grey
_MOST_SCANNED = 2_000_000_000  # pixels times scans
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]", re.DOTALL)  # those that end a scan's data
_FRAME, _SCAN, _END = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}, 0xDA, 0xD9
_SIZ, _COD, _COC, _POC, _SOT, _SOD, _EOC = 0xFF51, 0xFF52, 0xFF53, 0xFF5F, 0xFF90, 0xFF93, 0xFFD9
_SIZE = struct.Struct(">8LH")  # right, lower, left and upper edge, width and height of a tile, its edges, components
_MOST_COMPONENTS = 4
_MOST_TILES = 4096  # 30 million pixels in tiles of 128 x 128 are 1,831
_MOST_RESOLUTIONS = 33
_LEAST_BLOCK = 10  # log2 of a code-block's area, which is 4,096 in most files
_MOST_PRECINCTS = 60_000  # a decoder takes 1.5 kB for each; 30 million pixels in tiles of 128 x 128 have 10,986
_MOST_PACKETS = 5_000_000
_ODD = "is JPEG 2000 in smaller or more pieces than a radiograph has: save it as PNG."
_DAMAGED = "is a damaged JPEG 2000: replace it by an intact copy."
_Segment = tuple[int, bytes, int]  # marker, content and end


class _Size(NamedTuple):
    """Size of a JPEG 2000 and of its grid of tiles."""

    width: int
    height: int
    components: int
    columns: int  # of tiles
    rows: int


def require_few_scans(content: bytes) -> float:
    """Return the bytes that a JPEG's decoder holds for each pixel from one scan to the next.

    Previews in its metadata or behind it do not count.

    Raises:
        DataError: It has more scans than a radiograph needs, or too many for its size.
    """
    if content.count(b"\xff\xda") < 2:  # a scan's data cannot hold this marker
        return 0
    count, pixels, subsampled, at = 0, 0, 1.0, 2
    while (found := _MARKER.search(content, at)) is not None:
        kind, at = content[found.start() + 1], found.end()
        if kind == _END:
            break
        if kind in _FRAME:
            pixels = _integer(content, at + 3, 2) * _integer(content, at + 5, 2)
            subsampled = _sampled(content[at + 9 : at + 8 + 3 * content[at + 7] : 3])
        count += kind == _SCAN
        if count > _MOST_SCANS or count * pixels > _MOST_SCANNED:
            raise DataError(f"is a JPEG of {_MOST_SCANS} or more scans, or of too many for its size: save it as PNG.")
        at += _integer(content, at, 2)
    return 2 * subsampled if count > 1 else 0


def is_jpeg2000(head: bytes) -> bool:
    """Return whether a file that starts with these bytes is JPEG 2000, with or without boxes."""
    return head.startswith((b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"))


def require_structure(content: bytes) -> tuple[int, int, int]:
    """Return width, height and components; raise a DataError if decoding allocates much more than its pixels need."""
    start = _find_codestream(content)
    header = list(_segments(content, start + 2))
    sizes = [segment for marker, segment, _ in header if marker == _SIZ]
    if not sizes or len(sizes[0]) < 36:
        raise DataError(_DAMAGED)
    size = _read_size(sizes[0])
    layers = _require_styles(header, 1, size)
    if not layers:
        raise DataError(_DAMAGED)
    _require_tiles(content, header[-1][2], layers, size)
    return size.width, size.height, size.components


def _sampled(factors: bytes) -> float:
    """Return the number of samples for each pixel, from the sampling factors of the components."""
    areas = [(factor >> 4) * (factor & 15) for factor in factors]
    return sum(areas) / max(areas, default=1) if all(areas) else len(areas)


def _find_codestream(content: bytes) -> int:
    if content.startswith(b"\xff\x4f"):
        return 0
    at = 0
    while at + 16 <= len(content):
        size, head = _integer(content, at), 8
        if size == 1:
            size, head = _integer(content, at + 8, 8), 16
        if content[at + 4 : at + 8] == b"jp2c":
            return at + head
        if size < head:  # 0 is the last box
            break
        at += size
    raise DataError(_DAMAGED)


def _segments(content: bytes, at: int) -> Iterator[_Segment]:
    """Yield the segments up to the pixels of a tile, or to the first tile."""
    while at + 4 <= len(content) and (marker := _integer(content, at, 2)) not in (_SOT, _SOD):
        end = at + 2 + _integer(content, at + 2, 2)
        if marker < 0xFF01 or end < at + 4:
            raise DataError(_DAMAGED)
        yield marker, content[at + 4 : end], end
        at = end


def _read_size(segment: bytes) -> _Size:
    right, lower, left, upper, wide, high, tile_left, tile_upper, components = _SIZE.unpack_from(segment, 2)
    if not wide or not high or right <= left or lower <= upper:
        raise DataError(_DAMAGED)
    columns, rows = ceil((right - tile_left) / wide), ceil((lower - tile_upper) / high)
    if components > _MOST_COMPONENTS or columns * rows > _MOST_TILES:
        raise DataError(_ODD)
    return _Size(right - left, lower - upper, components, columns, rows)


def _require_styles(segments: list[_Segment], layers: int, size: _Size) -> int:
    """Check how an image or a tile is coded; return its number of layers, or 0 where its segments have none."""
    found = 0
    for marker, segment, _ in segments:
        if marker == _COD and len(segment) >= 10:
            found = _integer(segment, 2, 2)
            _require_blocks(segment[5:], bool(segment[0] & 1), max(found, 1), size)
        elif marker == _COC and len(segment) >= 7:
            _require_blocks(segment[2:], bool(segment[1] & 1), max(found, layers), size)
        elif marker in (_COD, _COC, _POC):
            raise DataError(_ODD)
    return found


def _require_blocks(style: bytes, has_precincts: bool, layers: int, size: _Size) -> None:
    resolutions, block = style[0] + 1, style[1] + style[2] + 4
    sides = style[5 : 5 + resolutions] if has_precincts else b"\xff" * resolutions
    if block < _LEAST_BLOCK or resolutions > _MOST_RESOLUTIONS or len(sides) < resolutions:
        raise DataError(_ODD)
    precincts = 0.0
    for halved, side in enumerate(reversed(sides)):  # the image's own size last, after its halves
        columns = size.width / (1 << halved + (side & 15)) + size.columns  # each tile starts another
        rows = size.height / (1 << halved + (side >> 4)) + size.rows
        precincts += size.components * columns * rows
    if precincts > _MOST_PRECINCTS or precincts * layers > _MOST_PACKETS:
        raise DataError(_ODD)


def _require_tiles(content: bytes, at: int, layers: int, size: _Size) -> None:
    """Check tiles that override how the others are coded."""
    while _integer(content, at, 2) == _SOT:
        length = _integer(content, at + 6)
        _require_styles(list(_segments(content, at + 12)), layers, size)
        if length == 0:  # to the end
            return
        if length < 14:
            raise DataError(_DAMAGED)
        at += length
    if at < len(content) and (len(content) < at + 2 or _integer(content, at, 2) != _EOC):
        raise DataError(_DAMAGED)


def _integer(content: bytes, at: int, size: int = 4) -> int:
    return int.from_bytes(content[at : at + size], "big")
