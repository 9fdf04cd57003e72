"""Decoded pixels of a DICOM image, from any supported transfer syntax."""

from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, uid
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.pixels.processing import apply_color_lut, convert_color_space
from pydicom.tag import Tag
from pydicom.uid import UID, JPEGBaseline8Bit, JPEGExtended12Bit, RLELossless

from pneumo.data import codestreams
from pneumo.data.codestreams import ITEM, Codestream
from pneumo.data.decoder_limits import dicom_bytes, require_memory
from pneumo.data.dicom_header import MONOCHROME, read_text
from pneumo.data.grey import blocks
from pneumo.errors import DataError

PIXELS = [*map(Tag, ("PixelData", "FloatPixelData", "DoubleFloatPixelData"))]
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422")  # what pydicom returns; the first are no luma


class Pixels(NamedTuple):
    """Decoded pixels."""

    samples: NDArray[Any]  # stored values (H, W), or luminance of a colour image (H, W) uint8
    photometric: str  # MONOCHROME1, MONOCHROME2 or PALETTE COLOR for stored values, RGB for luminance
    packed: bool  # whether values are stored bit by bit, and not by a codec of its own precision
    notes: list[str]  # where pixels and header disagree


def decode_pixels(dataset: Dataset) -> Pixels:
    """Decode the one image of a dataset whose header `complete_header` has completed."""
    if "PixelData" not in dataset:
        floating = any(name in dataset for name in PIXELS)
        what = "floating-point pixels, which have no agreed range" if floating else "a picture's header and no pixels"
        raise DataError(f"is a DICOM file with {what}: replace it by an intact copy, or one of whole numbers.")
    notes: list[str] = []
    decoder = _select_decoder(dataset, notes)
    full = decoder.is_native and _is_full_size(dataset)
    dataset.file_meta.TransferSyntaxUID = syntax = decoder.UID
    packed = decoder.is_native or syntax == RLELossless
    options: dict[str, Any] = {"correct_unused_bits": not packed}  # which clears the bits above BitsStored
    if full:
        options["photometric_interpretation"] = "YBR_FULL"
    if syntax == RLELossless:
        codestreams.require_decodable(_native_size(dataset))
        options["decoding_plugin"] = codestreams.NAME
    samples, decoded = decoder.as_array(dataset, index=0, raw=True, **options)
    del dataset.PixelData
    photometric = dataset.PhotometricInterpretation
    if samples.ndim == 3:
        grey = _find_grey(samples, "" if full else str(decoded["photometric_interpretation"]), notes)
        if grey is None:
            samples = _luminance(samples, dataset.BitsStored, str(decoded["photometric_interpretation"]))
            photometric = "RGB"
        elif photometric in MONOCHROME:
            samples = grey
        else:
            samples, photometric = _eight_bit(grey, dataset.BitsStored), "RGB"
    return Pixels(samples, photometric, packed, notes)


def build_palette_table(stored: NDArray[Any], dataset: Dataset) -> NDArray[np.uint8]:
    """Compute the luminance of each stored value by the palette's lookup tables."""
    with suppress(AttributeError, TypeError, ValueError, OverflowError, IndexError):
        size, first, bits = (int(number) for number in dataset.RedPaletteColorLookupTableDescriptor)
        # Within the table's ends, since pydicom's indices wrap around beyond them.
        inside = stored.astype(np.int64).clip(first, first + (size % 65536 or 65536) - 1)
        colours = _eight_bit(apply_color_lut(inside, dataset)[None, :, :3], bits)
        return np.array(Image.fromarray(colours).convert("L")).reshape(-1)
    raise DataError("has a palette that is incomplete or damaged: export it again as MONOCHROME2.")


def _eight_bit(samples: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    if samples.itemsize == 1:
        return samples
    found = np.empty(samples.shape, np.uint8)
    for block in blocks(len(samples), samples.shape[1]):
        found[block] = (samples[block] * (255 / ((1 << bits) - 1))).round().clip(0, 255)
    return found


def _luminance(samples: NDArray[Any], bits: int, photometric: str) -> NDArray[np.uint8]:
    """Convert colours, shape (H, W, 3), to luminance, shape (H, W)."""
    found = np.empty(samples.shape[:2], np.uint8)
    for block in blocks(len(samples), samples.shape[1]):
        rgb = convert_color_space(_eight_bit(samples[block], bits), photometric, "RGB")
        found[block] = np.asarray(Image.fromarray(rgb).convert("L"))
    return found


def _find_grey(samples: NDArray[Any], photometric: str, notes: list[str]) -> NDArray[Any] | None:
    """Return the one channel of a grey image (H, W, 3), whether stored as RGB or as luma; None for coloured ones.

    `photometric` is empty if the pixels' number contradicts it.
    """
    first, others, parts = samples[..., 0], samples[..., 1:], list(blocks(len(samples), samples.shape[1]))
    equal = all((others[block] == first[block][..., None]).all() for block in parts)
    neutral = not equal and samples.itemsize == 1
    neutral = neutral and all((np.abs(others[block].astype(int) - 128) <= 1).all() for block in parts)
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
    native = (
        uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
    )
    named = UID(read_text(dataset.file_meta, "TransferSyntaxUID") or native)
    known = _known_decoder(named)
    items = dataset.PixelData.startswith(ITEM)
    size, needed = len(dataset.PixelData), _native_size(dataset)
    syntaxes = _reconcile(dataset, notes) if items else ()
    if syntaxes and named not in syntaxes:
        notes.append("its pixels are compressed in another way than its header says")
        named = syntaxes[0]
    elif known and not known.is_native and not items and size in (needed, needed + 1):
        notes.append("its pixels are not compressed, though its header says so")
        named = native
    elif known and not syntaxes and (items and size < needed if known.is_native else not items):
        raise DataError("has pixels that contradict its transfer syntax and are of an unknown kind: export it again.")
    return _find_decoder(named, dataset.BitsStored)


def _reconcile(dataset: Dataset, notes: list[str]) -> tuple[UID, ...]:
    """Compare compressed pixels with their header, which a JPEG of 8 bits corrects; return their transfer syntaxes."""
    codestreams.require_few_items(dataset.PixelData)
    found, frame = Codestream(), b""
    with suppress(Exception):  # pydicom raises many kinds where the items are damaged
        frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
        found = codestreams.inspect_codestream(frame)
    if found.shape not in (None, (dataset.Rows, dataset.Columns, dataset.SamplesPerPixel)):
        raise DataError(
            "has a compressed image of another size or number of samples than its Rows, Columns and SamplesPerPixel "
            "say: export it again."
        )
    buffered = codestreams.require_bounds(frame, (dataset.Columns, dataset.Rows))
    require_memory(dicom_bytes(dataset, len(dataset.PixelData)) + buffered)
    if found.syntaxes[:1] == (JPEGBaseline8Bit,) and found.bits == 8 < dataset.BitsAllocated:
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        notes.append("its pixels have 8 bits, and not as many as its header says")
    return found.syntaxes


def _find_decoder(syntax: UID, bits: int) -> Decoder:
    if (decoder := _known_decoder(syntax)) is None:
        known = f" ({syntax.name})" if syntax.type == "Transfer Syntax" else ""
        raise DataError(f"has pixels in a transfer syntax that pydicom does not decode{known}: save it uncompressed.")
    only_eight = syntax == JPEGExtended12Bit and decoder.available_plugins == ("pillow",)
    if not decoder.is_available or (only_eight and bits > 8):
        package = f"pylibjpeg pylibjpeg-{'openjpeg' if 'JPEG 2000' in syntax.name else 'libjpeg'}"
        raise DataError(
            f"is compressed as {syntax.name}, {syntax}, whose decoder is not installed: "
            f"pip install {'pyjpegls' if 'JPEG-LS' in syntax.name else package}, or save it uncompressed."
        )
    return decoder


def _known_decoder(syntax: UID) -> Decoder | None:
    with suppress(NotImplementedError):
        return get_decoder(syntax)
    return None
