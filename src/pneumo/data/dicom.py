"""DICOM: one film's pixels as a viewer shows them, without a look at who was filmed.

Only the elements that pixels need are read (`_ELEMENTS`), and no message holds a value of theirs.
"""

import re
from contextlib import suppress
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGExtended12Bit,
)

from pneumo.data.images import require_size
from pneumo.errors import DataError

Values = NDArray[np.float64]

# Without the preamble, which some archives leave out, a file starts with the length of its header, or with one of the
# first elements that there are: (0008,0000), 0001, 0005, 0008, 0016 or 0018.
_START = re.compile(rb".{128}DICM|\x02\0\0\0|\x08\0[\0\x01\x05\x08\x16\x18]\0", re.DOTALL)
_PALETTE = [
    f"{kind}{colour}PaletteColorLookupTable{part}"
    for colour in ("Red", "Green", "Blue")
    for kind, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
]
_ELEMENTS = [
    *("Modality", "BodyPartExamined", "ViewPosition"),
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("VOILUTSequence", "VOILUTFunction", "WindowCenter", "WindowWidth"),
    *_PALETTE,
]
_PIXELS = ["PixelData", "FloatPixelData", "DoubleFloatPixelData"]
_RADIOGRAPHY = ("", "CR", "DX", "DR", "RG", "RF", "SC", "OT")  # SC and OT, captured and other, leave it open
_LATERAL = ("LL", "RL", "LAT", "LATERAL")
_CHEST = re.compile(r"^$|CHEST|THORA|TORAX|LUNG")


def is_dicom(head: bytes) -> bool:
    """Tell whether a file that starts with these bytes (132 or more) is a DICOM file."""
    return _START.match(head) is not None


def read_dicom(stream: BinaryIO) -> tuple[Image.Image, list[str]]:
    """Give the one film of a DICOM file, grey, 8 bits a pixel, and what speaks against it as a frontal chest film.

    Values go through the modality's table or rescaling and the first VOI table or window. Where there is none, 8-bit
    values are greys already, and others are stretched from the least to the greatest that is no padding. Of MONOCHROME1
    the negative is taken. Padding is black. Colour becomes luminance. (PS3.3 C.7.6.3, C.11.1, C.11.2; PS3.4 N.2.)

    Raises:
        DataError: It holds no film, several, or one that is too large or small, or that cannot be decoded here.
        Exception: Whatever pydicom raises for damaged files; the text may hold elements' values.
    """
    if DeflatedExplicitVRLittleEndian.encode() in stream.read(1 << 16):  # its size is not known before it is unpacked
        raise DataError("is deflated as a whole, which is not read: save it uncompressed (dcmconv +te of DCMTK does).")
    stream.seek(0)
    header = dcmread(stream, stop_before_pixels=True, force=True, specific_tags=list(_ELEMENTS))
    _require_film(header)
    stream.seek(0)
    dataset = dcmread(stream, force=True, specific_tags=[*_ELEMENTS, *_PIXELS])
    pixels = _decode(dataset)
    if pixels.ndim == 3:
        greys = Image.fromarray(_eight_bit(pixels)).convert("L")
    else:
        # What a value becomes is found once for each that there can be, 65,536 at most, and not for each pixel.
        codes = pixels.astype(pixels.dtype.newbyteorder("="), copy=False).view(f"u{pixels.dtype.itemsize}")
        stored = np.arange(1 << 8 * codes.itemsize, dtype=codes.dtype).view(f"{pixels.dtype.kind}{codes.itemsize}")
        palette = dataset.PhotometricInterpretation == "PALETTE COLOR"
        table = _palette(stored, dataset) if palette else _monochrome(stored, codes, dataset)
        greys = Image.fromarray(table[codes])
    return greys, _doubts(header)


def _require_film(header: Dataset) -> None:
    """Raise a DataError unless the header is that of one film that can be held in memory."""
    if not header.get("Rows") or not header.get("Columns"):
        raise DataError("is a DICOM file without a picture, such as a report or a directory.")
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise DataError("has several frames, and a radiograph is one: save the one that you mean as its own file.")
    require_size(*(min(int(side), 65535) for side in (header.Columns, header.Rows)))  # no longer number is in a message
    if header.BitsAllocated not in (8, 16):
        raise DataError("has neither 8 nor 16 bits for a pixel's value, and no other film is read: save it with 16.")


def _decode(dataset: Dataset) -> NDArray[Any]:
    """Give the pixels as they are stored, shape (H, W), or (H, W, 3) as RGB."""
    if "PixelData" not in dataset:
        floating = any(name in dataset for name in _PIXELS)
        what = "floating-point pixels, which have no agreed range" if floating else "a picture's header and no pixels"
        raise DataError(f"is a DICOM file with {what}: replace it by an intact copy, or one of whole numbers.")
    implicit, little = dataset.original_encoding
    native = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    syntax = dataset.file_meta.get("TransferSyntaxUID") or (ImplicitVRLittleEndian if implicit else native)
    decoder = _find_decoder(syntax, dataset.BitsStored)
    if decoder.is_native:
        samples = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel
        halved = dataset.PhotometricInterpretation == "YBR_FULL_422"
        if len(dataset.PixelData) < samples * dataset.BitsAllocated // 8 * (2 if halved else 3) // 3:
            raise DataError("is cut off: it has fewer pixels than its header says. Replace it by an intact copy.")
    return decoder.as_array(dataset, index=0)[0]


def _find_decoder(syntax: Any, bits: int) -> Decoder:  # noqa: ANN401 (pydicom's UID, or what a damaged file has there)
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


def _eight_bit(colours: NDArray[Any]) -> NDArray[np.uint8]:
    return np.asarray((colours / 257).round() if colours.itemsize == 2 else colours, np.uint8)


def _palette(stored: NDArray[Any], dataset: Dataset) -> NDArray[np.uint8]:
    colours = _eight_bit(apply_color_lut(stored, dataset)[None, :, :3])
    return np.array(Image.fromarray(colours).convert("L")).reshape(-1)


def _monochrome(stored: NDArray[Any], codes: NDArray[Any], dataset: Dataset) -> NDArray[np.uint8]:
    """Give the grey of each value that a pixel can have, shape (256,) or (65536,)."""
    padding = _padding(stored, dataset)
    present = np.zeros(len(stored), bool)
    present[codes] = True
    if not (present & ~padding).any():
        raise DataError("holds padding and no film.")
    with np.errstate(all="ignore"):
        values = _modality(stored, dataset)
        share = _interest(values, dataset)
        if share is None:
            plain = dataset.BitsStored == 8 and np.array_equal(values, np.arange(len(stored)))
            share = values / 255 if plain else _spread(values, values[present & ~padding])
    if not np.isfinite(share).all():
        raise DataError("has a rescaling or a window that is no finite number: replace it by an intact copy.")
    greys = (share.clip(0, 1) * 255).round().astype(np.uint8)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        greys = 255 - greys
    greys[padding] = 0
    return np.asarray(greys)


def _padding(stored: NDArray[Any], dataset: Dataset) -> NDArray[np.bool_]:
    """Tell which values stand for no film at all."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(len(stored), bool)
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = [stored[int(end) % len(stored)] for end in (value, value if limit is None else limit)]  # signed or not
    return np.asarray((stored >= min(ends)) & (stored <= max(ends)))


def _modality(stored: NDArray[Any], dataset: Dataset) -> Values:
    if sequence := dataset.get("ModalityLUTSequence"):
        return _look_up(stored.astype(float), sequence[0], dataset)
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    return stored.astype(float) * float(1 if slope is None else slope) + float(0 if intercept is None else intercept)


def _interest(values: Values, dataset: Dataset) -> Values | None:
    """Give each value's place from black (0) to white (1) by the first VOI table or window; None if there is none."""
    if sequence := dataset.get("VOILUTSequence"):
        found = _look_up(values, sequence[0], dataset)
        return _spread(found, found)
    center, width = (np.atleast_1d(dataset.get(name)).tolist()[:1] for name in ("WindowCenter", "WindowWidth"))
    if center in ([], [None], [""]) or width in ([], [None], [""]):
        return None
    middle, wide = float(center[0]), float(width[0])
    function = str(dataset.get("VOILUTFunction") or "LINEAR")
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID") or wide < (1 if function == "LINEAR" else 1e-9):
        raise DataError("has a window that DICOM does not allow: its width is below 1, or its function is unknown.")
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(-4 * (values - middle) / wide)))
    if function == "LINEAR":
        middle, wide = middle - 0.5, max(wide - 1, 1e-9)
    return (values - middle) / wide + 0.5


def _spread(values: Values, seen: Values) -> Values:
    """Move the least value that is seen to 0, and the greatest to 1."""
    low, high = seen.min(), seen.max()
    return np.asarray((values - low) / (high - low or 1.0))


def _look_up(values: Values, item: Dataset, dataset: Dataset) -> Values:
    """Look values up in a table; those beyond its ends take the last entry there."""
    entries, first, _ = item.LUTDescriptor
    entries = entries % 65536 or 65536
    data = item.LUTData
    if isinstance(data, bytes):  # as OW, which pydicom leaves as it is
        wide = len(data) >= 2 * entries
        data = np.frombuffer(data, ("<u2" if dataset.original_encoding[1] else ">u2") if wide else "u1")
    return np.asarray(np.asarray(data, float)[np.rint(values - first).clip(0, entries - 1).astype(int)])


def _doubts(header: Dataset) -> list[str]:
    position, modality, part = (
        str(header.get(name) or "").upper() for name in ("ViewPosition", "Modality", "BodyPartExamined")
    )
    doubts = {
        "its header says that it is a lateral view": position in _LATERAL,
        "its header says that it is no plain radiograph": modality not in _RADIOGRAPHY,
        "its header says that it shows no chest": _CHEST.search(part) is None,
    }
    return [text for text, found in doubts.items() if found]
