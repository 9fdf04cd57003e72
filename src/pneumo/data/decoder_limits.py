"""Limits of image decoders: memory, bytes read, and warnings.

Threads share one memory budget, so that a process's memory does not grow with the number of its machine's cores.
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

_LOGGERS = [logging.getLogger(name) for name in ("pydicom", "PIL")]  # both log elements' values, some when debugged
_NOWHERE: list[logging.Handler] = [logging.NullHandler()]
_HEADER_READS = 100_000
_READS = 1_000_000  # of Pillow's and pydicom's loops in Python, which take 1 to 3 us for each
_SPARE = 1 << 20  # bytes
MOST_BYTES = 512 << 20  # for one image, its file's content included
_MOST_TOGETHER = 2 << 30  # for all images that threads decode at once; one more may exceed it
_NARROW = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}
_WIDE = 4  # bytes of a pixel of any other mode
_BY_COLOUR = ("P", "PA", "RGBA", "CMYK", "LAB", "HSV")  # become RGB before they become grey
_BLOCKS = 16 << 20  # what calculations block by block take
_SAMPLES = {"LA": 2, "RGB": 3, "YCbCr": 3, "RGBA": 4, "CMYK": 4}


class _Silence:
    """A context in which pydicom's and Pillow's warnings and logs are kept back: they can hold a patient's data.

    Python keeps one list of warning filters for all threads, so that the first thread to enter changes it and the last
    to leave puts it back.
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
                # Not by the loggers' levels: to set one clears the caches of all loggers, which takes 50 us.
                self._before = [(logger.handlers, logger.propagate) for logger in _LOGGERS]
                for logger in _LOGGERS:  # their children have no handlers of their own
                    logger.handlers, logger.propagate = _NOWHERE, False
            self._readers += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._readers -= 1
            if self._readers == 0:
                for logger, (handlers, propagate) in zip(_LOGGERS, self._before, strict=True):
                    logger.handlers, logger.propagate = handlers, propagate
                self._warnings.__exit__(None, None, None)


SILENCE = _Silence()


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


class _Share:
    size = 0  # bytes of one image


class _Thread(threading.local):
    share: _Share | None = None


class Budget:
    """Memory that the images of several threads share."""

    def __init__(self, most: int) -> None:
        """Start with all of the `most` bytes free.

        One image at a time may exceed them: if all threads waited for more, none would ever release what it has.
        """
        self._most, self._used = most, 0
        self._exceeding: _Share | None = None
        self._released = threading.Condition()
        self._thread = _Thread()

    @contextmanager
    def share(self) -> Iterator[None]:
        """Release at the end what this thread reserves; within another `share` of the thread, that one releases it."""
        if self._thread.share is not None:
            yield
            return
        share = self._thread.share = _Share()
        try:
            yield
        finally:
            self._thread.share = None
            with self._released:
                self._used -= share.size
                self._exceeding = None if self._exceeding is share else self._exceeding
                self._released.notify_all()

    def reserve(self, needed: int) -> None:
        """Wait until this thread may use so many bytes in all; does nothing outside of `share`."""
        share = self._thread.share
        if share is None or needed <= share.size:
            return
        more = needed - share.size
        with self._released:
            self._released.wait_for(lambda: self._used + more <= self._most or self._exceeding in (None, share))
            self._used, share.size = self._used + more, needed
            if self._used > self._most:
                self._exceeding = share


BUDGET = Budget(_MOST_TOGETHER)


def require_memory(needed: int) -> None:
    """Raise a DataError for an image that would take more than `MOST_BYTES`; else reserve what it takes."""
    if needed > MOST_BYTES:
        raise DataError(
            f"takes some {needed / 1e6:,.0f} MB of memory to decode, and {MOST_BYTES / 1e6:,.0f} MB are the most that "
            "is used for an image: save it smaller, in grey."
        )
    BUDGET.reserve(needed)


def picture_bytes(image: Image.Image, content: int, tile: int, buffered: float) -> int:
    """Estimate the peak that decoding a picture, opened and not loaded, and making it grey takes.

    `content` is the bytes of its file, `tile` those of a decoded strip or tile of a TIFF, held next to the image, and
    `buffered` those that the decoder of a JPEG holds for each pixel.
    """
    stored = _NARROW.get(image.mode, _WIDE)
    needed = stored + 1 + buffered + (_WIDE if image.mode in _BY_COLOUR else 0)
    if image.format == "WEBP":
        needed += 3 * _WIDE  # two canvases and a copy
    elif image.format == "JPEG2000":
        samples = _SAMPLES.get(image.mode, 1)
        needed += samples * (4 + (stored if samples == 1 else 1))
    whole = 0 if image.format in ("PNG", "BMP") else content
    return int(needed * image.width * image.height) + whole + tile + _BLOCKS


def dicom_bytes(header: Dataset, content: int) -> int:
    """Estimate the peak for a DICOM image, whose header is complete, in a file of `content` bytes."""
    pixels = header.Rows * header.Columns
    samples = header.SamplesPerPixel * header.BitsAllocated // 8
    return int(content + pixels * (3 * samples + 2) + _BLOCKS)  # those of pixels in RLE; uncompressed ones take less
