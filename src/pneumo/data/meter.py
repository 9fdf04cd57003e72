"""Streams of files of unknown origin: what decoders may read of them is bounded."""

import os
from typing import BinaryIO

from pneumo.errors import DataError

_HEADER_READS = 100_000
_READS = 1_000_000  # of Pillow's and pydicom's loops in Python, which take 1 to 3 us for each
_SPARE = 1 << 20  # bytes


class Meter:
    """A stream that raises a DataError where a decoder reads more often, or more, than a radiograph needs.

    Decoders loop in Python over the pieces that files are made of: chunks, blocks, directories, elements. The time and
    memory of these loops follow from the number of reads and of bytes, regardless of the format.
    """

    def __init__(self, stream: BinaryIO) -> None:
        """Start at the beginning of a stream that can be rewound."""
        self._stream = stream
        self.size = stream.seek(0, os.SEEK_END)
        self._reads = _HEADER_READS
        self._bytes = 4 * self.size + _SPARE  # some headers are read three times
        stream.seek(0)

    def begin_pixels(self) -> None:
        """Allow the reads that pixels need, which follow the header."""
        self._reads = _READS

    def read(self, size: int | None = -1) -> bytes:
        """Read at most `size` bytes; a size beyond the end allocates nothing."""
        left = max(self.size - self._stream.tell(), 0)
        size = left if size is None or size < 0 else min(size, left)
        self._reads -= 1
        self._bytes -= size
        if self._reads < 0 or self._bytes < 0:
            raise DataError("is made of more pieces than a radiograph has: save its image again, as PNG.")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to another position."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._stream.tell()
