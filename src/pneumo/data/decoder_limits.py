"""Limits of image decoders on memory, number of reads and bytes read, and suppression of their log output.

All threads share one memory budget, so the memory of a process does not grow with the number of CPU cores.
"""

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from PIL import Image
from pydicom import Dataset

from pneumo.errors import DataError

_LOGGERS = [logging.getLogger(name) for name in ("pydicom", "PIL")]  # both log the values of elements
_NULL_HANDLERS: list[logging.Handler] = [logging.NullHandler()]
_MAX_HEADER_READS = 100_000
_MAX_READS = 1_000_000  # by the Python loops of Pillow and pydicom, at 1 to 3 us each
_EXTRA_BYTES = 1 << 20
MAX_BYTES = 512 << 20  # memory for one image, including the content of its file
_MAX_TOTAL_BYTES = 2 << 30  # memory for all images decoded at once; one more image may exceed it
_BYTES_PER_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}
_MAX_BYTES_PER_PIXEL = 4  # in any other mode
_VIA_RGB = ("P", "PA", "RGBA", "CMYK", "LAB", "HSV")  # modes that are converted to RGB before greyscale
_BLOCK_BYTES = 16 << 20  # working memory of block-wise computations
_SAMPLES = {"LA": 2, "RGB": 3, "YCbCr": 3, "RGBA": 4, "CMYK": 4}


class _LogSuppression:
    """Context that suppresses warnings and logs of pydicom and Pillow, which can contain patient data.

    All threads share one list of warning filters. The first thread to enter changes it, the last to leave restores it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0

    def __enter__(self) -> None:
        with self._lock:
            if self._readers == 0:
                self._warnings = warnings.catch_warnings()
                self._warnings.__enter__()
                warnings.simplefilter("ignore")
                # Setting levels instead would clear the caches of all loggers, which takes 50 us.
                self._before = [(logger.handlers, logger.propagate) for logger in _LOGGERS]
                for logger in _LOGGERS:  # their child loggers have no handlers
                    logger.handlers, logger.propagate = _NULL_HANDLERS, False
            self._readers += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._readers -= 1
            if self._readers == 0:
                for logger, (handlers, propagate) in zip(_LOGGERS, self._before, strict=True):
                    logger.handlers, logger.propagate = handlers, propagate
                self._warnings.__exit__(None, None, None)


LOG_SUPPRESSION = _LogSuppression()


class LimitedStream:
    """Stream that raises a DataError after more reads or bytes than a radiograph needs.

    Decoders loop in Python over the chunks, blocks, directories or elements of a file. Regardless of the format, the
    numbers of reads and bytes bound the time and memory of these loops.
    """

    def __init__(self, stream: BinaryIO) -> None:
        """Wrap a seekable stream and rewind it."""
        self._stream = stream
        self.size = stream.seek(0, os.SEEK_END)
        self._reads = _MAX_HEADER_READS
        self._bytes = 4 * self.size + _EXTRA_BYTES  # some headers are read three times
        stream.seek(0)

    def begin_pixels(self) -> None:
        """Allow the additional reads of pixels after the header."""
        self._reads = _MAX_READS

    def read(self, size: int | None = -1) -> bytes:
        """Read at most `size` bytes; a size beyond the end allocates no memory."""
        left = max(self.size - self._stream.tell(), 0)
        size = left if size is None or size < 0 else min(size, left)
        self._reads -= 1
        self._bytes -= size
        if self._reads < 0 or self._bytes < 0:
            raise DataError("has more chunks or elements than a radiograph needs: save it again as PNG.")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._stream.tell()


class _Reservation:
    size = 0  # bytes of one image


class _Thread(threading.local):
    reservation: _Reservation | None = None


class MemoryBudget:
    """Memory budget for images that several threads decode."""

    def __init__(self, limit: int) -> None:
        """Initialize with `limit` free bytes.

        One image at a time may exceed the limit. Otherwise threads that all wait for more memory would deadlock.
        """
        self._limit, self._used = limit, 0
        self._exceeding: _Reservation | None = None
        self._released = threading.Condition()
        self._thread = _Thread()

    @contextmanager
    def reservation(self) -> Iterator[None]:
        """Release the memory reserved by this thread on exit; of nested contexts, only the outermost one does."""
        if self._thread.reservation is not None:
            yield
            return
        reservation = self._thread.reservation = _Reservation()
        try:
            yield
        finally:
            self._thread.reservation = None
            with self._released:
                self._used -= reservation.size
                self._exceeding = None if self._exceeding is reservation else self._exceeding
                self._released.notify_all()

    def reserve(self, needed: int) -> None:
        """Wait until this thread may use `needed` bytes in total; do nothing outside of `reservation`."""
        reservation = self._thread.reservation
        if reservation is None or needed <= reservation.size:
            return
        more = needed - reservation.size
        with self._released:
            self._released.wait_for(lambda: self._used + more <= self._limit or self._exceeding in (None, reservation))
            self._used, reservation.size = self._used + more, needed
            if self._used > self._limit:
                self._exceeding = reservation


MEMORY_BUDGET = MemoryBudget(_MAX_TOTAL_BYTES)


def require_memory(needed: int) -> None:
    """Reserve memory for an image; raise a DataError if it needs more than `MAX_BYTES`."""
    if needed > MAX_BYTES:
        raise DataError(
            f"needs about {needed / 1e6:,.0f} MB of memory to decode, but the maximum is {MAX_BYTES / 1e6:,.0f} MB: "
            "save a smaller greyscale version."
        )
    MEMORY_BUDGET.reserve(needed)


def raster_bytes(image: Image.Image, content: int, tile: int, buffered: float) -> int:
    """Estimate the peak memory of decoding a raster image and converting it to greyscale.

    Args:
        image: The image, opened but not loaded.
        content: Bytes of its file.
        tile: Bytes of a decoded strip or tile of a TIFF, held in addition to the image.
        buffered: Bytes per pixel that a JPEG decoder holds.
    """
    stored = _BYTES_PER_PIXEL.get(image.mode, _MAX_BYTES_PER_PIXEL)
    needed = stored + 1 + buffered + (_MAX_BYTES_PER_PIXEL if image.mode in _VIA_RGB else 0)
    if image.format == "WEBP":
        needed += 3 * _MAX_BYTES_PER_PIXEL  # two canvases and a copy
    elif image.format == "JPEG2000":
        samples = _SAMPLES.get(image.mode, 1)
        needed += samples * (4 + (stored if samples == 1 else 1))
    whole = 0 if image.format in ("PNG", "BMP") else content
    return int(needed * image.width * image.height) + whole + tile + _BLOCK_BYTES


def dicom_bytes(header: Dataset, content: int) -> int:
    """Estimate the peak memory of a DICOM image with a complete header in a file of `content` bytes."""
    pixels = header.Rows * header.Columns
    samples = header.SamplesPerPixel * header.BitsAllocated // 8
    return int(content + pixels * (3 * samples + 2) + _BLOCK_BYTES)  # for RLE pixels; uncompressed ones need less
