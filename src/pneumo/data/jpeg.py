"""Structural checks of JPEG and JPEG 2000 files before a decoder allocates memory."""

import re
import struct
from collections.abc import Iterator
from math import ceil
from typing import NamedTuple

from pneumo.errors import DataError

_MAX_SCANS = 100  # progressive JPEGs have 10, or 6 in greyscale
_MAX_SCANNED_PIXELS = 2_000_000_000  # pixels times scans
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]", re.DOTALL)  # the markers that end the data of a scan
_FRAME, _SCAN, _END = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}, 0xDA, 0xD9
_SIZ, _COD, _COC, _POC, _SOT, _SOD, _EOC = 0xFF51, 0xFF52, 0xFF53, 0xFF5F, 0xFF90, 0xFF93, 0xFFD9
_SIZ_FIELDS = struct.Struct(">8LH")  # x and y of: end, offset, tile size, tile offset; then the number of components
_MAX_COMPONENTS = 4
_MAX_TILES = 4096  # 30 million pixels in tiles of 128 x 128 are 1,831
_MAX_RESOLUTIONS = 33
_MIN_BLOCK = 10  # log2 of the area of a code-block, which is 4,096 in most files
_MAX_PRECINCTS = 60_000  # a decoder needs 1.5 kB for each; 30 million pixels in tiles of 128 x 128 have 10,986
_MAX_PACKETS = 5_000_000
_EXCESSIVE = "is a JPEG 2000 with smaller or more tiles or blocks than a radiograph needs: save it as PNG."
_DAMAGED = "is a damaged JPEG 2000: replace it with an intact copy."
_Segment = tuple[int, bytes, int]  # marker, content and end


class _Size(NamedTuple):
    """Size of a JPEG 2000 image and of its tile grid."""

    width: int
    height: int
    components: int
    columns: int  # of tiles
    rows: int


def require_few_scans(content: bytes) -> float:
    """Validate the number of scans of a JPEG; return the bytes per pixel that a decoder holds between scans.

    Scans of previews, in the metadata or after the image, are not counted.

    Raises:
        DataError: The JPEG has more scans than a radiograph needs, or too many for its size.
    """
    if content.count(b"\xff\xda") < 2:  # the data of a scan cannot contain this marker
        return 0
    count, pixels, subsampled, offset = 0, 0, 1.0, 2
    while (match := _MARKER.search(content, offset)) is not None:
        kind, offset = content[match.start() + 1], match.end()
        if kind == _END:
            break
        if kind in _FRAME:
            pixels = _integer(content, offset + 3, 2) * _integer(content, offset + 5, 2)
            subsampled = _samples_per_pixel(content[offset + 9 : offset + 8 + 3 * content[offset + 7] : 3])
        count += kind == _SCAN
        if count > _MAX_SCANS or count * pixels > _MAX_SCANNED_PIXELS:
            raise DataError(f"is a JPEG with more than {_MAX_SCANS} scans, or too many for its size: save it as PNG.")
        offset += _integer(content, offset, 2)
    return 2 * subsampled if count > 1 else 0


def is_jpeg2000(head: bytes) -> bool:
    """Return whether `head` is the beginning of a JPEG 2000 file, with or without boxes."""
    return head.startswith((b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"))


def require_structure(content: bytes) -> tuple[int, int, int]:
    """Validate the structure of a JPEG 2000; return width, height and number of components.

    Raises:
        DataError: The file is damaged, or decoding would allocate much more memory than the pixels need.
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


def _samples_per_pixel(factors: bytes) -> float:
    """Return the number of samples per pixel from the sampling factors of the components."""
    areas = [(factor >> 4) * (factor & 15) for factor in factors]
    return sum(areas) / max(areas, default=1) if all(areas) else len(areas)


def _find_codestream(content: bytes) -> int:
    if content.startswith(b"\xff\x4f"):
        return 0
    offset = 0
    while offset + 16 <= len(content):
        size, head = _integer(content, offset), 8
        if size == 1:
            size, head = _integer(content, offset + 8, 8), 16
        if content[offset + 4 : offset + 8] == b"jp2c":
            return offset + head
        if size < head:  # a size of 0 marks the last box
            break
        offset += size
    raise DataError(_DAMAGED)


def _segments(content: bytes, offset: int) -> Iterator[_Segment]:
    """Yield the segments before the first tile, or before the pixels of a tile."""
    while offset + 4 <= len(content) and (marker := _integer(content, offset, 2)) not in (_SOT, _SOD):
        end = offset + 2 + _integer(content, offset + 2, 2)
        if marker < 0xFF01 or end < offset + 4:
            raise DataError(_DAMAGED)
        yield marker, content[offset + 4 : end], end
        offset = end


def _read_size(segment: bytes) -> _Size:
    right, lower, left, upper, tile_width, tile_height, tile_left, tile_upper, components = _SIZ_FIELDS.unpack_from(
        segment, 2
    )
    if not tile_width or not tile_height or right <= left or lower <= upper:
        raise DataError(_DAMAGED)
    columns, rows = ceil((right - tile_left) / tile_width), ceil((lower - tile_upper) / tile_height)
    if components > _MAX_COMPONENTS or columns * rows > _MAX_TILES:
        raise DataError(_EXCESSIVE)
    return _Size(right - left, lower - upper, components, columns, rows)


def _require_styles(segments: list[_Segment], layers: int, size: _Size) -> int:
    """Validate the coding styles of an image or a tile; return its number of layers, or 0 if none is declared."""
    declared = 0
    for marker, segment, _ in segments:
        if marker == _COD and len(segment) >= 10:
            declared = _integer(segment, 2, 2)
            _require_blocks(segment[5:], bool(segment[0] & 1), max(declared, 1), size)
        elif marker == _COC and len(segment) >= 7:
            _require_blocks(segment[2:], bool(segment[1] & 1), max(declared, layers), size)
        elif marker in (_COD, _COC, _POC):
            raise DataError(_EXCESSIVE)
    return declared


def _require_blocks(style: bytes, has_precincts: bool, layers: int, size: _Size) -> None:
    resolutions, block = style[0] + 1, style[1] + style[2] + 4
    sides = style[5 : 5 + resolutions] if has_precincts else b"\xff" * resolutions
    if block < _MIN_BLOCK or resolutions > _MAX_RESOLUTIONS or len(sides) < resolutions:
        raise DataError(_EXCESSIVE)
    precincts = 0.0
    for level, side in enumerate(reversed(sides)):  # sides start at the lowest resolution, levels at full size
        columns = size.width / (1 << level + (side & 15)) + size.columns  # each tile starts another precinct
        rows = size.height / (1 << level + (side >> 4)) + size.rows
        precincts += size.components * columns * rows
    if precincts > _MAX_PRECINCTS or precincts * layers > _MAX_PACKETS:
        raise DataError(_EXCESSIVE)


def _require_tiles(content: bytes, offset: int, layers: int, size: _Size) -> None:
    """Validate the coding styles of tiles that override those of the image."""
    while _integer(content, offset, 2) == _SOT:
        length = _integer(content, offset + 6)
        _require_styles(list(_segments(content, offset + 12)), layers, size)
        if length == 0:  # the tile extends to the end
            return
        if length < 14:
            raise DataError(_DAMAGED)
        offset += length
    if offset < len(content) and (len(content) < offset + 2 or _integer(content, offset, 2) != _EOC):
        raise DataError(_DAMAGED)


def _integer(content: bytes, offset: int, size: int = 4) -> int:
    return int.from_bytes(content[offset : offset + size], "big")
