"""Structure of JPEG 2000 (ISO/IEC 15444-1, annex A and I.4): its parts decide what a decoder allocates."""

from collections.abc import Iterator
from math import ceil
from typing import NamedTuple

from pneumo.errors import DataError

_SIZ, _COD, _COC, _POC, _SOT, _SOD, _EOC = 0xFF51, 0xFF52, 0xFF53, 0xFF5F, 0xFF90, 0xFF93, 0xFFD9
_MOST_COMPONENTS = 4
_MOST_TILES = 4096  # 30 million pixels in tiles of 128 x 128 are 1,831
_MOST_RESOLUTIONS = 33
_LEAST_BLOCK = 10  # log2 of a code-block's area, which is 4,096 in most files
_MOST_PRECINCTS = 60_000  # a decoder takes 1.5 kB for each; 30 million pixels in tiles of 128 x 128 have 10,986
_MOST_PACKETS = 5_000_000
_ODD = "is JPEG 2000 in smaller or more pieces than a radiograph has: save it as PNG."
_DAMAGED = "is a damaged JPEG 2000: replace it by an intact copy."


class _Size(NamedTuple):
    width: int
    height: int
    components: int
    columns: int  # of tiles
    rows: int


def is_jpeg2000(head: bytes) -> bool:
    """Return whether a file that starts with these bytes is JPEG 2000, with or without boxes."""
    return head.startswith((b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"))


def require_structure(content: bytes) -> tuple[int, int, int]:
    """Raise a DataError for a file whose decoder would allocate much more than its pixels need.

    Returns:
        Width, height and number of components.
    """
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


def _find_codestream(content: bytes) -> int:
    if content.startswith(b"\xff\x4f"):
        return 0
    at = 0
    while at + 16 <= len(content):
        size, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        head = 16 if size == 1 else 8
        size = int.from_bytes(content[at + 8 : at + 16], "big") if size == 1 else size
        if kind == b"jp2c":
            return at + head
        if size < head:  # 0 is the last box
            break
        at += size
    raise DataError(_DAMAGED)


def _segments(content: bytes, at: int) -> Iterator[tuple[int, bytes, int]]:
    """Yield marker, content and end of the segments up to the pixels of a tile, or to the first tile."""
    while at + 4 <= len(content):
        marker = int.from_bytes(content[at : at + 2], "big")
        if marker in (_SOT, _SOD):
            return
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if marker < 0xFF01 or end < at + 4:
            raise DataError(_DAMAGED)
        yield marker, content[at + 4 : end], end
        at = end


def _read_size(segment: bytes) -> _Size:
    numbers = [int.from_bytes(segment[at : at + 4], "big") for at in range(2, 34, 4)]
    (right, lower), (left, upper), (wide, high), (tile_left, tile_upper) = zip(numbers[::2], numbers[1::2], strict=True)
    components = int.from_bytes(segment[34:36], "big")
    if not wide or not high or right <= left or lower <= upper:
        raise DataError(_DAMAGED)
    columns, rows = ceil((right - tile_left) / wide), ceil((lower - tile_upper) / high)
    if components > _MOST_COMPONENTS or columns * rows > _MOST_TILES:
        raise DataError(_ODD)
    return _Size(right - left, lower - upper, components, columns, rows)


def _require_styles(segments: list[tuple[int, bytes, int]], layers: int, size: _Size) -> int:
    """Check how an image or a tile is coded; return its number of layers, or 0 where that is not said.

    Args:
        segments: Of the main header or of a tile's.
        layers: Where the segments do not say it.
        size: Of the image.
    """
    found = 0
    for marker, segment, _ in segments:
        if marker == _COD and len(segment) >= 10:
            found = int.from_bytes(segment[2:4], "big")
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
    while content[at : at + 2] == _SOT.to_bytes(2, "big"):
        length = int.from_bytes(content[at + 6 : at + 10], "big")
        _require_styles(list(_segments(content, at + 12)), layers, size)
        if length == 0:  # to the end
            return
        if length < 14:
            raise DataError(_DAMAGED)
        at += length
    if at < len(content) and content[at : at + 2] != _EOC.to_bytes(2, "big"):
        raise DataError(_DAMAGED)
