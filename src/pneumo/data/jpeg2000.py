"""Structure of JPEG 2000 (ISO/IEC 15444-1, annex A and I.4): its parts decide what a decoder allocates."""

from collections.abc import Iterator
from math import ceil, prod

from pneumo.errors import DataError

_SIZ, _COD, _COC, _POC, _SOT, _SOD, _EOC = 0xFF51, 0xFF52, 0xFF53, 0xFF5F, 0xFF90, 0xFF93, 0xFFD9
_MOST_COMPONENTS = 4
_MOST_TILES = 4096  # 30 million pixels in tiles of 128 x 128 are 1,831
_LEAST_BLOCK = 10  # log2 of a code-block's area, which is 4,096 in most files
_LEAST_PRECINCT = 6  # log2 of a precinct's side
_MOST_PACKETS = 5_000_000
_ODD = "is JPEG 2000 in smaller or more pieces than a radiograph has: save it as PNG."
_DAMAGED = "is a damaged JPEG 2000: replace it by an intact copy."


def is_jpeg2000(head: bytes) -> bool:
    """Return whether a file that starts with these bytes is JPEG 2000, with or without boxes."""
    return head.startswith((b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"))


def require_structure(content: bytes) -> tuple[int, int, int]:
    """Raise a DataError for a file whose decoder would allocate much more than its pixels need.

    Returns:
        Width, height and number of components.
    """
    start = _find_codestream(content)
    found: dict[int, bytes] = {}
    at = start + 2
    for marker, segment, following in _segments(content, at):
        at = following
        found.setdefault(marker, segment)
    if not {_SIZ, _COD} <= found.keys() or len(found[_SIZ]) < 36 or len(found[_COD]) < 10:
        raise DataError(_DAMAGED)
    if _COC in found:
        raise DataError(_ODD)
    width, height, components, tiles = _read_size(found[_SIZ])
    _require_blocks(found[_COD], width * height, components, tiles)
    _require_plain_tiles(content, at)
    return width, height, components


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


def _read_size(segment: bytes) -> tuple[int, int, int, int]:
    """Return width, height, components and tiles."""
    numbers = [int.from_bytes(segment[at : at + 4], "big") for at in range(2, 34, 4)]
    (right, lower), (left, upper), (wide, high), (tile_left, tile_upper) = zip(numbers[::2], numbers[1::2], strict=True)
    components = int.from_bytes(segment[34:36], "big")
    if not wide or not high or right <= left or lower <= upper:
        raise DataError(_DAMAGED)
    tiles = ceil((right - tile_left) / wide) * ceil((lower - tile_upper) / high)
    if components > _MOST_COMPONENTS or tiles > _MOST_TILES:
        raise DataError(_ODD)
    return right - left, lower - upper, components, tiles


def _require_blocks(segment: bytes, pixels: int, components: int, tiles: int) -> None:
    layers = int.from_bytes(segment[2:4], "big")
    levels, block = segment[5] + 1, segment[6] + segment[7] + 4
    precincts = [(size & 15, size >> 4) for size in segment[10:]] if segment[0] & 1 else [(15, 15)]
    least = min(min(sides) for sides in precincts)
    parts = tiles + pixels / prod((1 << least, 1 << least))
    if block < _LEAST_BLOCK or least < _LEAST_PRECINCT or layers * levels * components * parts > _MOST_PACKETS:
        raise DataError(_ODD)


def _require_plain_tiles(content: bytes, at: int) -> None:
    """Raise a DataError where a tile overrides how the others are coded."""
    while content[at : at + 2] == _SOT.to_bytes(2, "big"):
        size = int.from_bytes(content[at + 6 : at + 10], "big")
        for marker, _, _ in _segments(content, at + 12):
            if marker in (_COD, _COC, _POC):
                raise DataError(_ODD)
        if size == 0:  # to the end
            return
        if size < 14:
            raise DataError(_DAMAGED)
        at += size
    if at < len(content) and content[at : at + 2] != _EOC.to_bytes(2, "big"):
        raise DataError(_DAMAGED)
