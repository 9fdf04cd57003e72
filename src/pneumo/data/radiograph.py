"""Reading a radiograph that somebody brings, whatever the file is: the grey picture, or the reason why not."""

import codecs
import io
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from pneumo.data.dicom import is_dicom, read_dicom
from pneumo.data.images import MOST_PIXELS, require_size, to_grey
from pneumo.data.quietly import quietly
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


def read_radiograph(source: Path | bytes) -> Film:
    """Read a radiograph in any format of Pillow, or in DICOM; the content tells which, not the suffix.

    Pixels are those that `pneumo.data.images.decode` resizes, so that a film is the same in training and prediction,
    with one exception: a photograph's EXIF orientation is followed, as all viewers do.

    Args:
        source: A file, or its content.

    Raises:
        DataError: It is no radiograph that can be read. The text is a predicate, `is empty (0 bytes).`, to which the
            caller adds whose: the file's name. It holds nothing of what is in the file, and no cause is kept with it,
            since decoders' messages quote elements.
    """
    with quietly():
        try:
            if isinstance(source, bytes):
                return _read(io.BytesIO(source))
            if source.exists() and not source.is_file():
                raise DataError("is no file, but a folder, a pipe or a device.")
            with source.open("rb") as stream:
                return _read(stream)
        except DataError:
            raise
        except Exception as error:  # decoders answer damaged bytes with all kinds of exceptions
            reason = _reason(error)
    raise DataError(reason)


def _read(stream: BinaryIO) -> Film:
    head = stream.read(512)
    stream.seek(0)
    if not head:
        raise DataError(f"is empty (0 bytes): {_INTACT}.")
    image, notes = read_dicom(stream) if is_dicom(head) else _read_picture(stream, head)
    darkest, brightest = cast(tuple[int, int], image.getextrema())
    if darkest == brightest:
        raise DataError(f"has one grey, {darkest} of 0 to 255, in all its pixels, and shows nothing.")
    if brightest - darkest < _FEW:
        notes.append(f"its greys lie between {darkest} and {brightest} of 0 to 255, where a film's reach farther")
    return Film(image, tuple(notes))


def _read_picture(stream: BinaryIO, head: bytes) -> tuple[Image.Image, list[str]]:
    try:
        image = Image.open(stream)
    except UnidentifiedImageError:
        image = None
    if image is None:
        raise DataError(_describe(head))
    if image.format in ("EPS", "WMF"):  # Pillow would start another program to draw them
        raise DataError("is a drawing, not a picture of pixels: save it as PNG.")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a phone's JPEG, with a preview behind the photograph
        raise DataError(f"has {frames} frames, and a radiograph is one: save the one that you mean as its own file.")
    require_size(*image.size)
    if image.mode == "F":
        raise DataError("has floating-point pixels, which have no agreed range: save it with 8 or 16 bits.")
    turned = _is_turned(image)
    if turned:
        ImageOps.exif_transpose(image, in_place=True)
    return to_grey(image), ["it was turned upright as its EXIF orientation says"] if turned else []


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


def _reason(error: Exception) -> str:
    """Say why a file could not be read, in words of our own."""
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be opened ({error.strerror}): mend its path or its permissions."
    if isinstance(error, MemoryError):
        return "needs more memory than there is."
    if isinstance(error, Image.DecompressionBombError):
        return f"says that it has more than {MOST_PIXELS:,} pixels, which are the most that is read."
    if "truncated" in str(error).lower():
        return f"is cut off: {_INTACT}."
    return f"is damaged, or stored in a way that cannot be decoded here: {_INTACT}, or save it as PNG."
