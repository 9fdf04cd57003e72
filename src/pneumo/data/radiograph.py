"""The reader of radiographs, which returns a grey image with notes or raises a `DataError` with the reason.

Prediction, audit, training and all caches use it, so all accept the same files and get equal pixels.
"""

import io
import os
import stat
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pneumo.data.decoder_limits import BUDGET, MOST_BYTES, SILENCE, Meter
from pneumo.data.dicom import is_dicom, read_dicom
from pneumo.data.grey import MOST_PIXELS, square
from pneumo.data.raster import INTACT, Opened, Storage, read_picture
from pneumo.errors import DataError

_FEW = 64  # greys between darkest and brightest; among the study's 5,856 films the least is 112


class DecodedImage(NamedTuple):
    """A radiograph, and what makes predictions for it doubtful."""

    image: Image.Image  # grey, 8 bits a pixel (mode L), at full size
    notes: tuple[str, ...]  # such as a lateral view: one phrase each, without patient data


def read_radiograph(source: Path | bytes) -> DecodedImage:
    """Read a radiograph, a file or its content, in DICOM or one of `pneumo.data.raster.FORMATS`, whatever its suffix.

    Raises:
        DataError: It is no radiograph that can be read, has one grey only, or would take too much memory or time. The
            text is a predicate, `is empty (0 bytes).`, to which the caller adds whose: the file's name. It holds
            nothing of what is in the file, and no cause is kept with it, since decoders' messages quote elements.
    """
    return examine_radiograph(source)[0]


def examine_radiograph(source: Path | bytes) -> tuple[DecodedImage, Storage]:
    """Read a radiograph as `read_radiograph` does, and return how it is stored next to it."""
    opened = _open(source)
    return DecodedImage(opened.image, (*opened.notes, *_contrast_notes(opened))), opened.storage


def read_content(path: Path) -> bytes:
    """Read a file that `read_radiograph` may accept."""
    try:
        _reserve_content(path)
        return path.read_bytes()
    except OSError as error:
        reason = _describe_failure(error)
    raise DataError(reason)


def decode(path: Path, size: int, crop_pct: float = 1.0) -> NDArray[np.uint8]:
    """Read a radiograph for training and resize it to a square; see `square` and `decode_with_notes`."""
    return decode_with_notes(path, size, crop_pct)[0]


def decode_with_notes(path: Path, size: int, crop_pct: float = 1.0) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Decode a radiograph as `decode` does, and return the notes of `read_radiograph` next to it.

    Raises:
        DataError: It cannot be read; the text names the file.
    """
    try:
        opened = _open(path)
        pixels = square(opened.image, size, crop_pct)
        # Resizing averages: where the square has many greys, the image has them too, and need not be searched for them.
        few = int(pixels.max()) - int(pixels.min()) < _FEW
        return pixels, (*opened.notes, *(_contrast_notes(opened) if few else ()))
    except DataError as error:
        raise DataError(
            f"{path} {error} Training stops at such a file; `pneumo audit` lists all of them, so that they can be "
            "replaced or deleted at once."
        ) from None


def _open(source: Path | bytes) -> Opened:
    with SILENCE, BUDGET.share():
        try:
            if isinstance(source, bytes):
                BUDGET.reserve(len(source))
                return _read(io.BytesIO(source))
            _reserve_content(source)
            with open(source, "rb") as stream:
                return _read(stream)
        except DataError as error:
            reason = str(error)
        except Exception as error:  # decoders answer damaged bytes with all kinds of exceptions
            reason = _describe_failure(error)
    raise DataError(reason)


def _reserve_content(path: Path) -> None:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for ever
        raise DataError("is no file, but a folder, a pipe or a device.")
    if status.st_size > MOST_BYTES:
        raise DataError(f"has {status.st_size:,} bytes, and {MOST_BYTES:,} are the most that is read: save it smaller.")
    BUDGET.reserve(status.st_size)


def _contrast_notes(opened: Opened) -> tuple[str, ...]:
    darkest, brightest = cast(tuple[int, int], opened.image.getextrema())
    if darkest == brightest:
        raise DataError(f"has one grey, {darkest} of 0 to 255, in all its pixels, and shows nothing.")
    if brightest - darkest < _FEW and not opened.shallow:
        return (f"it has little contrast (greys from {darkest} to {brightest} of 255)",)
    return ()


def _read(stream: BinaryIO) -> Opened:
    meter = Meter(stream)
    head = meter.read(512)
    meter.seek(0)
    if not head:
        raise DataError(f"is empty (0 bytes): {INTACT}.")
    if is_dicom(head):
        image, notes = read_dicom(meter)
        return Opened(image, notes, Storage(image.mode, "DICOM"))
    return read_picture(meter, head)


def _describe_failure(error: Exception) -> str:
    """Return why a file could not be read, as a predicate without any of its content."""
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be opened ({error.strerror}): mend its path or its permissions."
    if isinstance(error, MemoryError):
        return "needs more memory than there is."
    if isinstance(error, Image.DecompressionBombError):
        return f"says that it has more than {MOST_PIXELS:,} pixels, which are the most that is read."
    if "truncated" in str(error).lower():
        return f"is cut off: {INTACT}."
    return f"is damaged, or stored in a way that cannot be decoded here: {INTACT}, or save it as PNG."
