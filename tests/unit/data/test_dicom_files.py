from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.uid import DeflatedExplicitVRLittleEndian

from pneumo.data.radiograph import DecodedImage, read_radiograph
from pneumo.errors import DataError

FILES = [path for path in Path(pydicom.data.__file__).parent.joinpath("test_files").rglob("*") if path.is_file()]


def luminance(colours: np.ndarray) -> np.ndarray:
    eight_bit = (colours / (257 if colours.itemsize == 2 else 1)).round().astype(np.uint8)
    return np.asarray(Image.fromarray(eight_bit[..., :3]).convert("L"))


def pydicom_greys(dataset: Dataset) -> np.ndarray:
    """Compute a single-frame image with functions of pydicom only, from 0 (black) to 255 (white)."""
    pixels = dataset.pixel_array
    if pixels.ndim == 3:
        return luminance(pixels)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        return luminance(apply_color_lut(pixels, dataset))
    padding = pixels == dataset.get("PixelPaddingValue", 1 << 20)
    shown = apply_voi_lut(apply_modality_lut(pixels, dataset), dataset, prefer_lut=True).astype(float)
    low, high = (0, 255) if dataset.BitsStored == 8 else (shown[~padding].min(), shown[~padding].max())
    if "VOILUTSequence" in dataset:
        low, high = 0, (1 << dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1
    elif "WindowWidth" in dataset:
        signed = dataset.PixelRepresentation << dataset.BitsStored - 1
        ends = np.array([-signed, (1 << dataset.BitsStored) - 1 - signed])
        low, high = ends * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))
    greys = (shown - low) / (high - low) * 255
    return np.where(padding, 0, 255 - greys if dataset.PhotometricInterpretation == "MONOCHROME1" else greys)


def expected_reason(dataset: Dataset) -> str | None:
    """Return why `read_radiograph` rejects an image that pydicom decodes; None if it does not."""
    if dataset.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
        return "deflated transfer syntax"
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        return "several frames"
    if min(dataset.Rows, dataset.Columns) < 32:
        return "each side must have at least 32"
    return None if dataset.BitsAllocated in (8, 16) else "neither 8 nor 16"


def read(path: Path) -> DecodedImage | str:
    try:
        return read_radiograph(path)
    except DataError as error:
        return str(error)


@pytest.mark.filterwarnings("ignore")  # of pydicom, for files that are invalid on purpose
def test_files_of_pydicom_are_read_like_pydicom() -> None:
    equal = 0
    for path in FILES:
        result = read(path)  # including files that pydicom itself rejects
        try:
            dataset = pydicom.dcmread(path)
            reason = expected_reason(dataset)
            expected = pydicom_greys(dataset) if reason is None else None
        except (AttributeError, InvalidDicomError, RuntimeError, ValueError):
            # Not an image, not a DICOM file, without an installed decoder, or damaged.
            continue
        if isinstance(result, str):
            assert reason, path
            assert reason in result
        elif not any("excluded from the grey scale" in note for note in result.notes):  # pneumo's own stretch
            assert expected is not None, path
            assert np.abs(np.asarray(result.image) - expected.clip(0, 255)).max() <= 1, path
            equal += 1
    assert equal > 30
