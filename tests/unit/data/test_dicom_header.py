from typing import Any

import numpy as np
import pytest
from helpers.damaged_images import smooth_image
from helpers.dicom_files import dicom
from pydicom.uid import JPEGBaseline8Bit

from pneumo.data.radiograph import read_radiograph
from pneumo.errors import DataError

GREY = smooth_image(np.random.default_rng(0))
TWELVE = GREY.astype(np.uint16) * 16
RGB = np.dstack([GREY, GREY // 2, GREY // 3])


@pytest.mark.parametrize(
    ("name", "pixels", "value"),
    [
        ("SamplesPerPixel", TWELVE, 1),
        ("SamplesPerPixel", RGB, 3),
        ("PixelRepresentation", TWELVE, 0),
        ("PlanarConfiguration", RGB, 0),
        ("BitsAllocated", TWELVE, 16),
        ("BitsAllocated", GREY, 8),
        ("BitsStored", TWELVE, 12),
        ("HighBit", TWELVE, 11),
    ],
)
@pytest.mark.parametrize("empty", [None, b""])
def test_a_missing_element_with_one_sensible_value_is_assumed(
    name: str, pixels: np.ndarray, value: int, empty: bytes | None
) -> None:
    options: dict[str, Any] = {
        "bits": 12 if pixels is TWELVE else None,
        "photometric": "RGB" if pixels.ndim == 3 else "MONOCHROME2",
    }
    whole = read_radiograph(dicom(pixels, **options))
    image, notes = read_radiograph(dicom(pixels, **{**options, name: empty}))
    np.testing.assert_array_equal(np.asarray(image), np.asarray(whole.image))
    assert whole.notes == ()
    assert notes == (f"header lacks {name}, which was assumed to be {value}",)


def test_missing_bits_stored_default_to_bits_allocated() -> None:
    image, notes = read_radiograph(dicom(TWELVE, bits=12, BitsStored=None, HighBit=None))
    assert np.abs(np.asarray(image).astype(int) - GREY).max() <= 1
    assert [note.split(",")[0] for note in notes] == ["header lacks BitsStored", "header lacks HighBit"]


@pytest.mark.parametrize("empty", [None, b""])
@pytest.mark.parametrize("name", ["PhotometricInterpretation", "Rows", "Columns"])
def test_a_missing_required_element_is_named(name: str, empty: bytes | None) -> None:
    elements: dict[str, Any] = {name: empty}
    with pytest.raises(DataError, match=f"^lacks {name}, without which"):
        read_radiograph(dicom(GREY, **elements))


def test_all_missing_required_elements_are_named() -> None:
    missing: dict[str, Any] = dict.fromkeys(("BitsAllocated", "BitsStored", "HighBit", "PhotometricInterpretation"))
    with pytest.raises(DataError, match=r"^lacks BitsAllocated and PhotometricInterpretation"):
        read_radiograph(dicom(GREY, **missing))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Rows", b"\x60\0\x60\0"),
        ("BitsStored", b"\x20\0"),
        ("PixelRepresentation", 7),
        ("SamplesPerPixel", 4),
        ("NumberOfFrames", b"two"),
        ("PhotometricInterpretation", "HSV"),
    ],
)
def test_an_invalid_element_is_named(name: str, value: object) -> None:
    elements: dict[str, Any] = {name: value}
    with pytest.raises(DataError, match=name) as caught:
        read_radiograph(dicom(GREY, **elements))
    assert "damaged" not in str(caught.value)


def test_elements_that_grey_pixels_do_not_need_are_ignored() -> None:
    for elements in (
        {"PlanarConfiguration": 9},
        {"NumberOfFrames": b""},
        {"PhotometricInterpretation": b"Monochrome2"},
    ):
        image, notes = read_radiograph(dicom(GREY, **elements))
        np.testing.assert_array_equal(np.asarray(image), GREY)
        assert notes == ()


CHESTS = (
    *("CHEST", "CHEST PA", "PORT CHEST", "CHEST_TO_ABDOMEN", "CHESTABDOMEN", "NECKCHEST", "chest", "CHST"),
    *(
        "CXR",
        "THX",
        "THORAX",
        "Thorax p.a.",
        "THORACIC",
        "TORAX",
        "TÓRAX",
        "TÓRAX AP",
        "TORACE",
        "TORAKS",
        "CAGE THORACIQUE",
    ),
    *(
        "RIB",
        "RIBS",
        "RIBCAGE",
        "STERNUM",
        "LUNG",
        "LUNGS",
        "LUNGE",
        "LUNGEN",
        "PULMON",
        "PULMÓN",
        "PULMÃO",
        "PULMONES",
    ),
    *(
        "POUMON",
        "POUMONS",
        "POITRINE",
        "POLMONI",
        "PECHO",
        "PETTO",
        "PEITO",
        "BRUST",
        "BRUSTKORB",
        "BORSTKAS",
        "BRÖSTKORG",
    ),
    *("KLATKA PIERSIOWA", "PŁUCA", "HRUDNÍK", "MELLKAS", "KEUHKOT", "GÖĞÜS", "AKCİĞER", "HEART", "MEDIASTINUM"),
    *("ГРУДНАЯ КЛЕТКА", "ОГК", "胸部", "", "UNKNOWN"),
)


@pytest.mark.parametrize("part", CHESTS)
def test_a_chest_in_any_language_is_not_noted(part: str) -> None:
    latin = [part.encode("latin-1")] if all(ord(character) < 256 for character in part) else []
    for value in [part.encode("utf-8"), *latin]:
        assert read_radiograph(dicom(GREY, BodyPartExamined=value)).notes == ()


@pytest.mark.parametrize(
    "part", ["HAND", "KNEE", "ABDOMEN", "SKULL", "PELVIS", "BREAST", "MAMA", "PIED", "JAMBE", "CADERA"]
)
def test_other_body_parts_are_noted(part: str) -> None:
    (note,) = read_radiograph(dicom(GREY, BodyPartExamined=part)).notes
    assert "not a chest image" in note


def test_a_completed_header_works_with_compressed_pixels() -> None:
    content = dicom(GREY, syntax=JPEGBaseline8Bit, SamplesPerPixel=None, PixelRepresentation=None)
    image, notes = read_radiograph(content)
    assert np.abs(np.asarray(image).astype(int) - GREY).max() <= 2
    assert len(notes) == 2
