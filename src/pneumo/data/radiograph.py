"""Reader of radiographs: a greyscale image with notes, or a `DataError` with the reason.

Prediction, audit, training and all caches use this reader, so they accept the same files and get the same pixels.
"""

import io
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pneumo.common.input_format import NO_HISTOGRAM, InputFormat
from pneumo.data.decoder_limits import LOG_SUPPRESSION, MAX_BYTES, MEMORY_BUDGET, LimitedStream
from pneumo.data.dicom import read_dicom
from pneumo.data.dicom_signature import is_dicom
from pneumo.data.grey import MAX_PIXELS, square
from pneumo.data.raster import INTACT, OpenedImage, Storage, read_raster
from pneumo.errors import DataError

Result = TypeVar("Result")
_MIN_CONTRAST = 64  # brightest minus darkest grey value; the minimum of the 5,856 images of Kermany et al. is 112


class DecodedImage(NamedTuple):
    """A radiograph with notes on reasons to doubt a prediction."""

    image: Image.Image  # 8-bit greyscale (mode L) at full size
    notes: tuple[str, ...]  # such as a lateral view: one phrase each, without patient data


def read_radiograph(source: Path | bytes) -> DecodedImage:
    """Read a radiograph from a file or its content, in DICOM or one of `pneumo.data.raster.FORMATS`.

    The format is detected from the content; the suffix is ignored.

    Raises:
        DataError: The source cannot be read as a radiograph, has a single grey value, or needs too much memory or time.
            The text is a predicate such as `is empty (0 bytes).`, to which the caller prepends the file name. It has
            no cause and contains nothing of the file, since messages of decoders may quote patient data.
    """
    return examine_radiograph(source)[0]


def examine_radiograph(source: Path | bytes) -> tuple[DecodedImage, Storage]:
    """Read a radiograph as `read_radiograph` does; return it with the mode and format of its file."""
    opened = _open(source)
    return DecodedImage(opened.image, (*opened.notes, *_contrast_notes(opened))), opened.storage


def read_content(path: Path) -> bytes:
    """Read the bytes of a file for `read_radiograph`, within the same limits."""
    try:
        _reserve_content(path)
        return path.read_bytes()
    except OSError as error:
        reason = _describe_failure(error)
    raise DataError(reason)


def decode(path: Path, form: InputFormat) -> NDArray[np.uint8]:
    """Read a radiograph for training and convert it to a network's input; see `square` and `decode_with_notes`."""
    return decode_with_notes(path, form)[0]


def decode_with_notes(path: Path, form: InputFormat) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Read a radiograph as `decode` does; return it with the notes of `read_radiograph`.

    Raises:
        DataError: It cannot be read; the text names the file.
    """
    try:
        opened = _open(path)
        pixels = square(opened.image, form)
        # Resizing averages pixels, so the contrast of the full image is at least that of the square.
        low = form.histogram != NO_HISTOGRAM or int(pixels.max()) - int(pixels.min()) < _MIN_CONTRAST
        return pixels, (*opened.notes, *(_contrast_notes(opened) if low else ()))
    except DataError as error:
        raise DataError(
            f"{path} {error} Training stops at unreadable files. Run `pneumo audit` to list all of them, then replace "
            "or delete them."
        ) from None


def open_safely(source: Path | bytes, read: Callable[[LimitedStream, bytes], Result]) -> Result:
    """Read a file, or its content, within the limits of all decoders.

    Args:
        source: The file, or its content.
        read: Function of the stream and its first bytes.

    Raises:
        DataError: The function raised any exception. The text is a predicate without any content of the file.
    """
    with LOG_SUPPRESSION, MEMORY_BUDGET.reservation():
        try:
            if isinstance(source, bytes):
                MEMORY_BUDGET.reserve(len(source))
                return _read_head(io.BytesIO(source), read)
            _reserve_content(source)
            with open(source, "rb") as stream:
                return _read_head(stream, read)
        except DataError as error:
            reason = str(error)
        except Exception as error:  # decoders raise many kinds of exceptions for damaged bytes
            reason = _describe_failure(error)
    raise DataError(reason)


def _open(source: Path | bytes) -> OpenedImage:
    return open_safely(source, _read)


def _reserve_content(path: Path) -> None:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would block forever
        raise DataError("is not a regular file but a folder, a pipe or a device.")
    if status.st_size > MAX_BYTES:
        raise DataError(f"has {status.st_size:,} bytes, but the maximum is {MAX_BYTES:,}: save a smaller version.")
    MEMORY_BUDGET.reserve(status.st_size)


def _contrast_notes(opened: OpenedImage) -> tuple[str, ...]:
    darkest, brightest = cast(tuple[int, int], opened.image.getextrema())
    if darkest == brightest:
        raise DataError(f"has a single grey value, {darkest} of 255, in all its pixels.")
    if brightest - darkest < _MIN_CONTRAST and not opened.low_depth:
        return (f"low contrast (grey values {darkest} to {brightest} of 255)",)
    return ()


def _read_head(stream: BinaryIO, read: Callable[[LimitedStream, bytes], Result]) -> Result:
    limited = LimitedStream(stream)
    head = limited.read(512)
    limited.seek(0)
    if not head:
        raise DataError(f"is empty (0 bytes): {INTACT}.")
    return read(limited, head)


def _read(stream: LimitedStream, head: bytes) -> OpenedImage:
    if is_dicom(head):
        image, notes = read_dicom(stream)
        return OpenedImage(image, notes, Storage(image.mode, "DICOM"))
    return read_raster(stream, head)


def _describe_failure(error: Exception) -> str:
    """Return the reason why a file cannot be read, as a predicate without any of its content."""
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be opened ({error.strerror}): fix its path or its permissions."
    if isinstance(error, MemoryError):
        return "needs more memory than is available."
    if isinstance(error, Image.DecompressionBombError):
        return f"declares more than {MAX_PIXELS:,} pixels, which is the maximum."
    if "truncated" in str(error).lower():
        return f"is truncated: {INTACT}."
    return f"is damaged or has an unsupported encoding: {INTACT}, or save it as PNG."
