"""Pixels of a DICOM image, decoded; what they are compressed with is taken from the data where the header is wrong."""

from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.pixels.processing import apply_color_lut, convert_color_space
from pydicom.tag import Tag
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from pneumo.data.dicom_header import MONOCHROME, read_text
from pneumo.errors import DataError

PIXELS = [*map(Tag, ("PixelData", "FloatPixelData", "DoubleFloatPixelData"))]
_ITEM = b"\xfe\xff\x00\xe0"  # compressed pixels are a sequence of items, of which the first is a table of offsets
# By the marker that starts a JPEG's frame: the transfer syntaxes that it may have, the usual one first.
_JPEG = {
    0xC0: (JPEGBaseline8Bit, JPEGExtended12Bit),
    0xC1: (JPEGExtended12Bit, JPEGBaseline8Bit),
    0xC2: (JPEGBaseline8Bit,),  # progressive: retired from DICOM, but decoders of the baseline read it
    0xC3: (JPEGLosslessSV1, JPEGLossless),
    0xF7: (JPEGLSLossless, JPEGLSNearLossless),
}
_STARTS = {
    b"\xff\x4f\xff\x51": (JPEG2000, JPEG2000Lossless, HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL),
    b"\0\0\0\x0cjP  ": (JPEG2000, JPEG2000Lossless),
    **{bytes([segments, 0, 0, 0, 64, 0, 0, 0]): (RLELossless,) for segments in range(1, 7)},
}
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422")  # what pydicom returns; the first are no luma


class Pixels(NamedTuple):
    """Decoded pixels.

    Attributes:
        samples: Stored values, shape (H, W), or luminance of a colour image, shape (H, W) uint8.
        photometric: `MONOCHROME1`, `MONOCHROME2` or `PALETTE COLOR` for stored values, `RGB` for luminance.
        packed: Whether values are stored bit by bit, and not by a codec of its own precision.
        notes: Where pixels and header disagree.
    """

    samples: NDArray[Any]
    photometric: str
    packed: bool
    notes: list[str]


def decode_pixels(dataset: Dataset) -> Pixels:
    """Decode the one image of a dataset whose header `complete_header` has completed.

    Raises:
        DataError: There are no pixels, too few or too many; they contradict the header; or no decoder is installed.
    """
    if "PixelData" not in dataset:
        floating = any(name in dataset for name in PIXELS)
        what = "floating-point pixels, which have no agreed range" if floating else "a picture's header and no pixels"
        raise DataError(f"is a DICOM file with {what}: replace it by an intact copy, or one of whole numbers.")
    notes: list[str] = []
    decoder = _select_decoder(dataset, notes)
    full = decoder.is_native and _is_full_size(dataset)
    options: dict[str, Any] = {"photometric_interpretation": "YBR_FULL"} if full else {}
    dataset.file_meta.TransferSyntaxUID = syntax = decoder.UID
    samples, decoded = decoder.as_array(dataset, index=0, raw=True, **options)
    packed = decoder.is_native or syntax == RLELossless
    photometric = dataset.PhotometricInterpretation
    if samples.ndim == 3:
        grey = _find_grey(samples, "" if full else str(decoded["photometric_interpretation"]), notes)
        if grey is None:
            samples = _eight_bit(samples, dataset.BitsStored)
            rgb = convert_color_space(samples, str(decoded["photometric_interpretation"]), "RGB")
            samples, photometric = np.asarray(Image.fromarray(rgb).convert("L")), "RGB"
        elif photometric in MONOCHROME:
            samples = grey
        else:
            samples, photometric = _eight_bit(grey, dataset.BitsStored), "RGB"
    return Pixels(samples, photometric, packed, notes)


def build_palette_table(stored: NDArray[Any], dataset: Dataset) -> NDArray[np.uint8]:
    """Compute the luminance of each stored value by the palette's lookup tables."""
    try:
        size, first, bits = (int(number) for number in dataset.RedPaletteColorLookupTableDescriptor)
        # Within the table's ends, since pydicom's indices wrap around beyond them.
        inside = stored.astype(np.int64).clip(first, first + (size % 65536 or 65536) - 1)
        colours = _eight_bit(apply_color_lut(inside, dataset)[None, :, :3], bits)
    except (AttributeError, TypeError, ValueError, OverflowError, IndexError):
        pass
    else:
        return np.array(Image.fromarray(colours).convert("L")).reshape(-1)
    raise DataError("has a palette that is incomplete or damaged: export it again as MONOCHROME2.")


def _eight_bit(samples: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    return samples if samples.itemsize == 1 else (samples * (255 / ((1 << bits) - 1))).round().clip(0, 255).astype("u1")


def _find_grey(samples: NDArray[Any], photometric: str, notes: list[str]) -> NDArray[Any] | None:
    """Return the one channel of a grey image, whether stored as RGB or as luma; None for coloured ones.

    Args:
        samples: Shape (H, W, 3).
        photometric: What the samples are by the header, or empty if the pixels' number contradicts it.
        notes: Extended where grey pixels contradict the header.

    Raises:
        DataError: The image is coloured, and the header says nothing true about its colours.
    """
    first, others = samples[..., 0], samples[..., 1:]
    equal = bool((others == first[..., None]).all())
    neutral = samples.itemsize == 1 and bool((np.abs(others.astype(int) - 128) <= 1).all())
    if not equal and not neutral:
        if photometric in _COLOURS and (samples.itemsize == 1 or photometric == "RGB"):
            return None
        raise DataError("has pixels that contradict its PhotometricInterpretation: export it again as RGB.")
    if not ((equal and photometric == "RGB") or (neutral and photometric in _COLOURS[1:])):
        notes.append("its pixels are grey, and not stored as its PhotometricInterpretation says")
    return np.ascontiguousarray(first)


def _is_full_size(dataset: Dataset) -> bool:
    """Validate the size of uncompressed pixels; return whether they are complete though described as subsampled."""
    size, needed = len(dataset.PixelData), _native_size(dataset)
    if size < needed:
        raise DataError("is cut off: it has fewer pixels than its header says. Replace it by an intact copy.")
    if size >= 2 * needed > 2:
        raise DataError(
            "has at least twice as many bytes of pixels as its Rows, Columns, SamplesPerPixel and BitsAllocated say: "
            "export it again."
        )
    return bool(dataset.PhotometricInterpretation == "YBR_FULL_422" and size >= needed * 3 // 2)


def _native_size(dataset: Dataset) -> int:
    """Return the number of bytes that uncompressed pixels have."""
    size = int(dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * dataset.BitsAllocated // 8)
    return size * 2 // 3 if dataset.PhotometricInterpretation == "YBR_FULL_422" else size


def _select_decoder(dataset: Dataset, notes: list[str]) -> Decoder:
    """Find the decoder of the transfer syntax, or of what the pixels are where they contradict it."""
    implicit, little = dataset.original_encoding
    native = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    named = UID(read_text(dataset.file_meta, "TransferSyntaxUID") or native)
    known = None
    with suppress(NotImplementedError):
        known = get_decoder(named)
    items = dataset.PixelData.startswith(_ITEM)
    size = len(dataset.PixelData)
    if known and known.is_native and not (items and size < _native_size(dataset)):
        return known
    codecs = _find_codecs(dataset) if items else ()
    if not items and known and size in (_native_size(dataset), _native_size(dataset) + 1):
        notes.append("its pixels are not compressed, though its header says so")
        return get_decoder(native)
    if (not codecs and known and known.is_native) or (not items and known):
        raise DataError(
            "has pixels that contradict its transfer syntax: they are not stored as it says. Export it again."
        )
    if codecs and named not in codecs:
        notes.append("its pixels are compressed in another way than its header says")
        named = codecs[0]
    return _find_decoder(named, dataset.BitsStored)


def _find_codecs(dataset: Dataset) -> tuple[UID, ...]:
    """Return the transfer syntaxes that compressed pixels may have by their first bytes, the usual one first.

    Raises:
        DataError: The compressed image has another size than the header says.
    """
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    found = next((codecs for start, codecs in _STARTS.items() if frame.startswith(start)), ())
    size = None
    if frame.startswith(b"\xff\x4f\xff\x51"):
        right, lower, left, upper = (int.from_bytes(frame[at : at + 4], "big") for at in range(8, 24, 4))
        size = lower - upper, right - left
    at = 2
    while frame.startswith(b"\xff\xd8") and frame[at : at + 1] == b"\xff" and at + 9 < len(frame):
        if frame[at + 1] in _JPEG:
            found = _JPEG[frame[at + 1]]
            size = int.from_bytes(frame[at + 5 : at + 7], "big"), int.from_bytes(frame[at + 7 : at + 9], "big")
            break
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    if size and size[0] and size != (dataset.Rows, dataset.Columns):  # a JPEG may tell its height at its end
        raise DataError("has a compressed image of another size than its Rows and Columns say: export it again.")
    return found


def _find_decoder(syntax: UID, bits: int) -> Decoder:
    decoder = None
    with suppress(NotImplementedError):
        decoder = get_decoder(syntax)
    if decoder is None:
        known = f" ({syntax.name})" if syntax.type == "Transfer Syntax" else ""
        raise DataError(f"has pixels in a transfer syntax that pydicom does not decode{known}: save it uncompressed.")
    only_eight = syntax == JPEGExtended12Bit and decoder.available_plugins == ("pillow",)
    if not decoder.is_available or (only_eight and bits > 8):
        raise DataError(
            f"is compressed as {syntax.name}, {syntax}, whose decoder is not installed: "
            f"pip install {_package(syntax.name)}, or save it uncompressed."
        )
    return decoder


def _package(syntax: str) -> str:
    if "JPEG-LS" in syntax:
        return "pyjpegls"
    return f"pylibjpeg pylibjpeg-{'openjpeg' if 'JPEG 2000' in syntax else 'libjpeg'}"
