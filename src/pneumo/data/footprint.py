"""Memory that decoding takes, estimated from what a file's header says, before a pixel is decoded.

Threads that read files share a budget, so that a process's memory does not grow with the processors of its machine.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, local

from PIL import Image
from pydicom import Dataset

from pneumo.data.scans import Scans
from pneumo.errors import DataError

MOST_BYTES = 512 << 20  # for one image, its file's content included
MOST_TOGETHER = 2 << 30  # for all images that threads decode at once; one more may exceed it
_NARROW = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}
_WIDE = 4  # bytes of a pixel of any other mode
_BY_COLOUR = ("P", "PA", "RGBA", "CMYK", "LAB", "HSV")  # become RGB before they become grey
_BLOCKS = 16 << 20  # what calculations block by block take
_SAMPLES = {"LA": 2, "RGB": 3, "YCbCr": 3, "RGBA": 4, "CMYK": 4}


class _Share:
    size = 0  # bytes of one image


class Budget:
    """Memory that the images of several threads share."""

    def __init__(self, most: int) -> None:
        """Start with all of the `most` bytes free.

        One image at a time may exceed them: if all threads waited for more, none would ever release what it has.
        """
        self._most, self._used = most, 0
        self._exceeding: _Share | None = None
        self._released = Condition()
        self._threads = local()

    @contextmanager
    def share(self) -> Iterator[None]:
        """Release at the end what this thread reserves; within another `share` of the thread, that one releases it."""
        if getattr(self._threads, "share", None) is not None:
            yield
            return
        share = self._threads.share = _Share()
        try:
            yield
        finally:
            self._threads.share = None
            with self._released:
                self._used -= share.size
                self._exceeding = None if self._exceeding is share else self._exceeding
                self._released.notify_all()

    def reserve(self, needed: int) -> None:
        """Wait until this thread may use so many bytes in all; does nothing outside of `share`."""
        share: _Share | None = getattr(self._threads, "share", None)
        if share is None or needed <= share.size:
            return
        more = needed - share.size
        with self._released:
            self._released.wait_for(lambda: self._used + more <= self._most or self._exceeding in (None, share))
            self._used, share.size = self._used + more, needed
            if self._used > self._most:
                self._exceeding = share


BUDGET = Budget(MOST_TOGETHER)


def require_memory(needed: int) -> None:
    """Raise a DataError for an image that would take more than `MOST_BYTES`; else reserve what it takes."""
    if needed > MOST_BYTES:
        raise DataError(
            f"takes some {needed / 1e6:,.0f} MB of memory to decode, and {MOST_BYTES / 1e6:,.0f} MB are the most that "
            "is used for an image: save it smaller, in grey."
        )
    BUDGET.reserve(needed)


def picture_bytes(image: Image.Image, content: int, tile: int, scans: Scans) -> int:
    """Estimate the peak that decoding a picture and making it grey takes.

    Args:
        image: That was opened and not loaded.
        content: Bytes of its file.
        tile: Bytes of a decoded strip or tile of a TIFF, which the decoder holds next to the image.
        scans: Of a JPEG.
    """
    stored = _NARROW.get(image.mode, _WIDE)
    needed = stored + 1 + scans.buffered + (_WIDE if image.mode in _BY_COLOUR else 0)
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
