"""DICOM files built in memory."""

import io
import re
import warnings
from typing import Any

import numpy as np
from PIL import Image
from pydicom.config import disable_value_validation
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

_PILLOW: dict[UID, dict[str, Any]] = {
    JPEGBaseline8Bit: {"format": "JPEG", "quality": 100, "subsampling": 0},
    JPEG2000Lossless: {"format": "JPEG2000", "no_jp2": True},
}


def dicom(
    pixels: np.ndarray,
    *,
    bits: int | None = None,
    photometric: str = "MONOCHROME2",
    syntax: UID = ExplicitVRLittleEndian,
    preamble: bool = True,
    **elements: object,
) -> bytes:
    """Build a DICOM file of a chest radiograph.

    Args:
        pixels: Stored values, shape (H, W) or (H, W, 3), 8 or 16 bits, signed or unsigned.
        bits: BitsStored; by default all bits.
        photometric: PhotometricInterpretation.
        syntax: Transfer syntax; RLE, JPEG baseline and lossless JPEG 2000 compress the pixels.
        preamble: Whether to write the preamble and the file meta information.
        elements: Additional elements by keyword; None removes an element, and bytes are written unchanged.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = DigitalXRayImageStorageForPresentation, "1.2.3"
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "CHEST", "PA"
    dataset.set_pixel_data(pixels, photometric, bits or 8 * pixels.itemsize, generate_instance_uid=False)
    if syntax == RLELossless:
        dataset.compress(RLELossless, pixels, generate_instance_uid=False)
    elif syntax in _PILLOW:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, **_PILLOW[syntax])
        dataset.PixelData = encapsulate([stream.getvalue()])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    elif syntax == ExplicitVRBigEndian:
        dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax
    with disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some elements are invalid on purpose
        for keyword, value in elements.items():
            if value is None:
                delattr(dataset, keyword)
            elif isinstance(value, bytes):
                tag = Tag(keyword)
                value += b" " * (len(value) % 2)
                dataset[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)
            else:
                setattr(dataset, keyword, value)
        return _encode(dataset, preamble, syntax)


def _encode(dataset: Dataset, preamble: bool, syntax: UID) -> bytes:
    stream = io.BytesIO()
    if preamble:
        dataset.save_as(stream, enforce_file_format=True)
    else:
        del dataset.file_meta
        dataset.save_as(
            stream, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=syntax != ExplicitVRBigEndian
        )
    return stream.getvalue()


def lookup_table(first: int, values: np.ndarray, bits: int = 16, *, entries: int | None = None) -> list[Dataset]:
    """Build a sequence with one lookup table.

    Args:
        first: Input value of the first entry.
        values: Entries.
        bits: Bits per entry, 8 or 16.
        entries: Number of entries to write; by default all.
    """
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(values), first, bits])
    written = values[:entries]
    data = written.tolist() if bits == 8 else written.astype("<u2").tobytes()
    item.add_new("LUTData", "US" if bits == 8 else "OW", data)
    return [item]


def with_syntax(content: bytes, syntax: UID) -> bytes:
    """Replace the transfer syntax in the header of a DICOM file, without changing its pixels."""
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    element = b"\x02\0\x10\0UI" + len(value).to_bytes(2, "little") + value
    return re.sub(rb"\x02\0\x10\0UI..[0-9.]+\0?", lambda match: element, content, count=1, flags=re.DOTALL)
