"""Scans of a JPEG; each is a pass of its decoder over the whole image."""

import re
from typing import NamedTuple

from pneumo.errors import DataError

MOST_SCANS = 100  # progressive JPEGs have 10, or 6 in grey
_MOST_SCANNED = 2_000_000_000  # pixels times scans
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]", re.DOTALL)  # those that end a scan's data
_FRAME, _SCAN, _END = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}, 0xDA, 0xD9


class Scans(NamedTuple):
    """How a JPEG stores its pixels."""

    passes: int  # of the decoder over the image
    buffered: float  # bytes that it holds for each pixel from one scan to the next


def inspect_scans(content: bytes) -> Scans:
    """Count the scans of a JPEG up to its end, without previews in its metadata or behind it.

    Raises:
        DataError: There are more than `MOST_SCANS`, or more than the image's size allows.
    """
    if content.count(b"\xff\xda") < 2:  # a scan's data cannot hold this marker
        return Scans(1, 0)
    count, pixels, subsampled, at = 0, 0, 1.0, 2
    while (found := _MARKER.search(content, at)) is not None:
        kind, at = content[found.start() + 1], found.end()
        if kind == _END:
            break
        if kind in _FRAME:
            height, width = (int.from_bytes(content[at + start : at + start + 2], "big") for start in (3, 5))
            pixels, subsampled = height * width, _sampled(content[at + 9 : at + 8 + 3 * content[at + 7] : 3])
        count += kind == _SCAN
        if count > MOST_SCANS or count * pixels > _MOST_SCANNED:
            raise DataError(f"is a JPEG of {MOST_SCANS} or more scans, or of too many for its size: save it as PNG.")
        at += int.from_bytes(content[at : at + 2], "big")
    return Scans(count, 2 * subsampled if count > 1 else 0)


def _sampled(factors: bytes) -> float:
    """Return the number of samples for each pixel, from the sampling factors of the components."""
    areas = [(factor >> 4) * (factor & 15) for factor in factors]
    return sum(areas) / max(areas, default=1) if all(areas) else len(areas)
