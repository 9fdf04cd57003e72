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
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422")  # as returned by pydicom; all but the first store luma


class Pixels(NamedTuple):
    """Decoded pixels."""

    samples: NDArray[Any]  # stored values (H, W), or luminance of a colour image (H, W) uint8
    photometric: str  # MONOCHROME1, MONOCHROME2 or PALETTE COLOR for stored values, RGB for luminance
    packed: bool  # whether BitsStored and HighBit apply to the values; a JPEG codec has its own precision
    notes: list[str]  # contradictions between pixels and header


def decode_pixels(dataset: Dataset) -> Pixels:
    """Decode the single image of a dataset whose header was completed by `complete_header`."""
    if "PixelData" not in dataset:
        if any(name in dataset for name in PIXELS):
            raise DataError("has floating-point pixels, which have no defined range: export it with integer pixels.")
        raise DataError("is a DICOM file with an image header but no pixels: replace it with an intact copy.")
    notes: list[str] = []
    decoder = _select_decoder(dataset, notes)
    full = decoder.is_native and _is_full_size(dataset)
    dataset.file_meta.TransferSyntaxUID = syntax = decoder.UID
    packed = decoder.is_native or syntax == RLELossless
    options: dict[str, Any] = {"correct_unused_bits": not packed}  # clears the bits above BitsStored
    if full:
        options["photometric_interpretation"] = "YBR_FULL"
    if syntax == RLELossless:
        codestreams.require_decodable(_native_size(dataset))
        options["decoding_plugin"] = codestreams.PLUGIN_NAME
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
    """Compute the luminance of each stored value with the lookup tables of the palette."""
    with suppress(AttributeError, TypeError, ValueError, OverflowError, IndexError):
        size, first, bits = (int(number) for number in dataset.RedPaletteColorLookupTableDescriptor)
        # Clipped because the indices of pydicom wrap around beyond the ends of the table.
        inside = stored.astype(np.int64).clip(first, first + (size % 65536 or 65536) - 1)
        colours = _eight_bit(apply_color_lut(inside, dataset)[None, :, :3], bits)
        return np.array(Image.fromarray(colours).convert("L")).reshape(-1)
    raise DataError("has a palette that is incomplete or damaged: export it again as MONOCHROME2.")


def _eight_bit(samples: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    if samples.itemsize == 1:
        return samples
    scaled = np.empty(samples.shape, np.uint8)
    for block in blocks(len(samples), samples.shape[1]):
        scaled[block] = (samples[block] * (255 / ((1 << bits) - 1))).round().clip(0, 255)
    return scaled


def _luminance(samples: NDArray[Any], bits: int, photometric: str) -> NDArray[np.uint8]:
    """Convert colours, shape (H, W, 3), to luminance, shape (H, W)."""
    luminance = np.empty(samples.shape[:2], np.uint8)
    for block in blocks(len(samples), samples.shape[1]):
        rgb = convert_color_space(_eight_bit(samples[block], bits), photometric, "RGB")
        luminance[block] = np.asarray(Image.fromarray(rgb).convert("L"))
    return luminance


def _find_grey(samples: NDArray[Any], photometric: str, notes: list[str]) -> NDArray[Any] | None:
    """Return the channel (H, W) of a grey image stored as RGB or luma (H, W, 3); None for a coloured image.

    `photometric` is empty if it contradicts the number of pixels.
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
        notes.append("pixels are grey, which contradicts the PhotometricInterpretation")
    return np.ascontiguousarray(first)


def _is_full_size(dataset: Dataset) -> bool:
    """Validate the size of uncompressed pixels; return whether chroma declared as subsampled has full resolution."""
    size, needed = len(dataset.PixelData), _native_size(dataset)
    if size < needed:
        raise DataError("is truncated: it has fewer pixels than its header says. Replace it with an intact copy.")
    if size >= 2 * needed > 2:
        raise DataError(
            "has at least twice as many bytes of pixels as its Rows, Columns, SamplesPerPixel and BitsAllocated "
            "declare: export it again."
        )
    return bool(dataset.PhotometricInterpretation == "YBR_FULL_422" and size >= needed * 3 // 2)


def _native_size(dataset: Dataset) -> int:
    """Return the size of uncompressed pixels in bytes."""
    size = int(dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * dataset.BitsAllocated // 8)
    return size * 2 // 3 if dataset.PhotometricInterpretation == "YBR_FULL_422" else size


def _select_decoder(dataset: Dataset, notes: list[str]) -> Decoder:
    """Return the decoder of the transfer syntax, or that of the actual encoding if the two contradict."""
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
        notes.append("pixels are compressed differently than the header says")
        named = syntaxes[0]
    elif known and not known.is_native and not items and size in (needed, needed + 1):
        notes.append("pixels are not compressed although the header says so")
        named = native
    elif known and not syntaxes and (items and size < needed if known.is_native else not items):
        raise DataError("has pixels that contradict its transfer syntax, in an unknown encoding: export it again.")
    return _find_decoder(named, dataset.BitsStored)


def _reconcile(dataset: Dataset, notes: list[str]) -> tuple[UID, ...]:
    """Validate the header against the compressed pixels and return their possible transfer syntaxes.

    An 8-bit JPEG overrides the bit depth in the header.
    """
    codestreams.require_few_items(dataset.PixelData)
    codestream, frame = Codestream(), b""
    with suppress(Exception):  # pydicom raises many kinds for damaged items
        frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
        codestream = codestreams.inspect_codestream(frame)
    if codestream.shape not in (None, (dataset.Rows, dataset.Columns, dataset.SamplesPerPixel)):
        raise DataError(
            "has a compressed image whose size or number of samples differs from its Rows, Columns and "
            "SamplesPerPixel: export it again."
        )
    buffered = codestreams.require_bounds(frame, (dataset.Columns, dataset.Rows))
    require_memory(dicom_bytes(dataset, len(dataset.PixelData)) + buffered)
    if codestream.syntaxes[:1] == (JPEGBaseline8Bit,) and codestream.bits == 8 < dataset.BitsAllocated:
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        notes.append("pixels have 8 bits, fewer than BitsAllocated")
    return codestream.syntaxes


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
