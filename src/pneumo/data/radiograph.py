"""The one reader of radiographs: the grey image of a file with notes on it, or the reason against it.

Prediction, audit, training and all caches open their files here, so that they accept and refuse the same ones, see the
same pixels, and find the same notes.
"""

import codecs
import io
import os
import stat
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from pneumo.data.dicom import is_dicom, read_dicom
from pneumo.data.images import (
    LEAST_SIDE,
    MOST_PIXELS,
    SIXTEEN_BITS,
    is_deep,
    require_depth,
    require_size,
    square,
    to_grey,
)
from pneumo.data.quietly import quietly
from pneumo.data.tiff import TiffKind, is_tiff
from pneumo.errors import DataError

_FEW = 64  # greys between darkest and brightest; among the study's 5,856 films the least is 112
_INTACT = "replace it by an intact copy"
_OTHERS = {  # what else is often among films, by the bytes that such files start with
    b"PK\x03\x04": "is a ZIP archive: unpack it first.",
    b"\x1f\x8b": "is compressed by gzip: unpack it first.",
    b"%PDF": "is a PDF document: save its picture as PNG.",
    b"\xff\xd8\xff": f"is a damaged JPEG: {_INTACT}.",
    b"\x89PNG": f"is a damaged PNG: {_INTACT}.",
}


class Film(NamedTuple):
    """A radiograph, and what to tell beside its answer.

    Attributes:
        image: Grey, 8 bits a pixel (mode L), at full size.
        notes: What may make an answer worth little, such as a lateral view: one phrase each, without patient data.
    """

    image: Image.Image
    notes: tuple[str, ...]


class Storage(NamedTuple):
    """How a file stores its image.

    Attributes:
        mode: Pillow's name for the channels, such as L, RGB or I;16.
        format: Pillow's name for the format, such as JPEG, or DICOM.
    """

    mode: str
    format: str


class _Opened(NamedTuple):
    image: Image.Image
    notes: list[str]
    storage: Storage
    shallow: bool = False  # a note says already why there are few greys


def read_radiograph(source: Path | bytes, strict: bool = True) -> Film:
    """Read a radiograph in any format of Pillow, or in DICOM; the content tells which, not the suffix.

    Args:
        source: A file, or its content.
        strict: Refuse an image of one grey, and one with a side under `LEAST_SIDE`: no prediction on it means anything.
            Otherwise they get a note, because one of them among thousands must not stop a training or an audit.

    Raises:
        DataError: It is no radiograph that can be read. The text is a predicate, `is empty (0 bytes).`, to which the
            caller adds whose: the file's name. It holds nothing of what is in the file, and no cause is kept with it,
            since decoders' messages quote elements.
    """
    opened = _open(source, strict)
    return Film(opened.image, (*opened.notes, *_contrast_notes(opened, strict)))


def examine_radiograph(source: Path | bytes) -> tuple[Film, Storage]:
    """Read a radiograph as `read_radiograph` does for training, and return how it is stored next to it."""
    opened = _open(source, strict=False)
    return Film(opened.image, (*opened.notes, *_contrast_notes(opened, strict=False))), opened.storage


def decode(path: Path, size: int, crop_pct: float = 1.0) -> NDArray[np.uint8]:
    """Read a radiograph for training and resize it to a square; see `square`.

    Raises:
        DataError: It cannot be read.
    """
    return decode_with_notes(path, size, crop_pct)[0]


def decode_with_notes(path: Path, size: int, crop_pct: float = 1.0) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Decode a radiograph as `decode` does, and return the notes of `read_radiograph` next to it."""
    try:
        opened = _open(path, strict=False)
    except DataError as error:
        raise DataError(
            f"{path} {error} Training stops at such a file; `pneumo audit` lists all of them, so that they can be "
            "replaced or deleted at once."
        ) from None
    pixels = square(opened.image, size, crop_pct)
    # Resizing averages: where the square has many greys, the image has them too, and need not be searched for them.
    few = int(pixels.max()) - int(pixels.min()) < _FEW
    return pixels, (*opened.notes, *(_contrast_notes(opened, strict=False) if few else ()))


def _open(source: Path | bytes, strict: bool) -> _Opened:
    with quietly():
        try:
            if isinstance(source, bytes):
                return _read(io.BytesIO(source), strict)
            if not stat.S_ISREG(os.stat(source).st_mode):  # to open a pipe would wait for ever
                raise DataError("is no file, but a folder, a pipe or a device.")
            with open(source, "rb") as stream:
                return _read(stream, strict)
        except DataError:
            raise
        except Exception as error:  # decoders answer damaged bytes with all kinds of exceptions
            reason = describe_failure(error)
    raise DataError(reason)


def _contrast_notes(opened: _Opened, strict: bool) -> tuple[str, ...]:
    darkest, brightest = cast(tuple[int, int], opened.image.getextrema())
    if darkest == brightest:
        if strict:
            raise DataError(f"has one grey, {darkest} of 0 to 255, in all its pixels, and shows nothing.")
        return (f"it has one grey in all its pixels and shows nothing ({darkest} of 255)",)
    if brightest - darkest < _FEW and not opened.shallow:
        return (f"it has little contrast (greys from {darkest} to {brightest} of 255)",)
    return ()


def _read(stream: BinaryIO, strict: bool) -> _Opened:
    head = stream.read(512)
    stream.seek(0)
    if not head:
        raise DataError(f"is empty (0 bytes): {_INTACT}.")
    if is_dicom(head):
        image, notes = read_dicom(stream)
        return _Opened(image, notes, Storage(image.mode, "DICOM"))
    return _read_picture(stream, head, strict)


def _read_picture(stream: BinaryIO, head: bytes, strict: bool) -> _Opened:
    tiff = TiffKind(stream) if is_tiff(head) else None
    scale = tiff.scale() if tiff else SIXTEEN_BITS
    try:
        image = Image.open(stream)
    except UnidentifiedImageError:
        image = None
    if image is None:
        raise tiff.refusal() if tiff else DataError(_describe(head))
    if image.format in ("EPS", "WMF"):  # Pillow would start another program to draw them
        raise DataError("is a drawing, not a picture of pixels: save it as PNG.")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a phone's JPEG, with a preview behind the photograph
        raise DataError(f"has {frames} frames, and a radiograph is one: save the one that you mean as its own file.")
    small = min(image.size) < LEAST_SIDE
    if strict or not small:
        require_size(*image.size)
    require_depth(image, head)
    storage, deep, turned = Storage(image.mode, str(image.format)), is_deep(image), _is_turned(image)
    if turned:
        ImageOps.exif_transpose(image, in_place=True)
    grey, depth_notes = to_grey(image, scale, deep)
    notes = list(depth_notes)
    notes += ["it was turned upright as its EXIF orientation says"] if turned else []
    notes += [f"it has a side under {LEAST_SIDE} pixels ({image.width} x {image.height})"] if small else []
    return _Opened(grey, notes, storage, shallow=bool(depth_notes))


def _is_turned(image: Image.Image) -> bool:
    """Tell whether a photograph's data ask viewers to turn it; damaged ones do not."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
    except (struct.error, KeyError, SyntaxError, TypeError, ValueError):
        return False


def _describe(head: bytes) -> str:
    """Say what a file is that starts with these bytes and that Pillow does not know."""
    for start, what in _OTHERS.items():
        if head.startswith(start):
            return what
    if head[4:8] == b"ftyp":
        return "is a film or photograph in a format that is not read, such as HEIC: save it as JPEG or PNG."
    if _is_text(head):
        return "is text, not a picture."
    return f"is no picture in a format that is read, or damaged at its beginning: {_INTACT}."


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # its last character may be cut
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter.isspace() for letter in text)


def describe_failure(error: Exception) -> str:
    """Return why a file could not be read, as a predicate without any of its content."""
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be opened ({error.strerror}): mend its path or its permissions."
    if isinstance(error, MemoryError):
        return "needs more memory than there is."
    if isinstance(error, Image.DecompressionBombError):
        return f"says that it has more than {MOST_PIXELS:,} pixels, which are the most that is read."
    if "truncated" in str(error).lower():
        return f"is cut off: {_INTACT}."
    return f"is damaged, or stored in a way that cannot be decoded here: {_INTACT}, or save it as PNG."
