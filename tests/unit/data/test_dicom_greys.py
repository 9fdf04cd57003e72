from typing import Any

import numpy as np
import pytest
from helpers.damaged_images import smooth_image
from helpers.dicom_files import dicom, lookup_table
from pydicom import Dataset
from pydicom.pixels.processing import apply_voi

from pneumo.data.radiograph import read_radiograph
from pneumo.errors import DataError

GREY = smooth_image(np.random.default_rng(0))
TWELVE = GREY.astype(np.uint16) * 16
WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}


def read(pixels: np.ndarray, **elements: Any) -> tuple[np.ndarray, str]:  # noqa: ANN401
    image, notes = read_radiograph(dicom(pixels, **{"BitsStored": 12, "HighBit": 11, **elements}))
    return np.asarray(image).astype(int), "; ".join(notes)


UNUSABLE: dict[str, tuple[dict[str, Any], str]] = {
    "width 0": ({"WindowCenter": 0, "WindowWidth": 0}, "window is invalid"),
    "negative width": ({"WindowCenter": 2048, "WindowWidth": -5}, "window is invalid"),
    "NaN": ({"WindowCenter": "NaN", "WindowWidth": "NaN"}, "window is invalid"),
    "infinite": ({"WindowCenter": "inf", "WindowWidth": "4096"}, "window is invalid"),
    "decimal comma": ({"WindowCenter": b"2048,1", "WindowWidth": b"4096,1"}, "window is invalid"),
    "words": ({"WindowCenter": b"auto", "WindowWidth": b"auto"}, "window is invalid"),
    "no width": ({"WindowCenter": 2048}, "window is invalid"),
    "unknown function": ({**WINDOW, "VOILUTFunction": "CUBIC"}, "window is invalid"),
    "far above the data": ({"WindowCenter": 40_000, "WindowWidth": 100}, "makes nearly all pixels black or white"),
    "far below the data": ({"WindowCenter": -9000, "WindowWidth": 100}, "makes nearly all pixels black or white"),
    "short table": ({"VOILUTSequence": lookup_table(0, np.arange(4096), entries=2000)}, "VOI lookup table is invalid"),
    "short table of 8 bits": (
        {"VOILUTSequence": lookup_table(0, np.arange(4096) // 16, 8, entries=2000)},
        "VOI lookup table is invalid",
    ),
    "table without data": ({"VOILUTSequence": [Dataset()]}, "VOI lookup table is invalid"),
    "table that shows nothing": (
        {"VOILUTSequence": lookup_table(40_000, np.arange(4096))},
        "VOI lookup table makes nearly all pixels black or white",
    ),
}


@pytest.mark.parametrize("kind", UNUSABLE)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_an_unusable_window_or_table_is_ignored_and_noted(kind: str, photometric: str) -> None:
    elements, note = UNUSABLE[kind]
    pixels = TWELVE if photometric == "MONOCHROME2" else 4095 - TWELVE
    greys, notes = read(pixels, photometric=photometric, **elements)
    assert np.abs(greys - GREY).max() <= 1
    assert note in notes
    assert notes.count("was ignored") == 1


@pytest.mark.parametrize(
    ("elements", "ignored"),
    [
        ({"WindowCenter": [0, 1000], "WindowWidth": [0, 900]}, "window 1 of 2 is invalid"),
        ({"WindowCenter": b"x\\1000", "WindowWidth": b"5\\900"}, "window 1 of 2 is invalid"),
        (
            {"WindowCenter": [-9000, 1000], "WindowWidth": [9, 900]},
            "window 1 of 2 makes nearly all pixels black or white",
        ),
        (
            {"VOILUTSequence": lookup_table(0, np.arange(4096), entries=9), "WindowCenter": 1000, "WindowWidth": 900},
            "VOI lookup table is invalid",
        ),
    ],
)
def test_the_first_usable_window_is_applied_and_ignored_ones_are_noted(elements: dict[str, Any], ignored: str) -> None:
    expected, none = read(TWELVE, WindowCenter=1000, WindowWidth=900)
    greys, notes = read(TWELVE, **elements)
    np.testing.assert_array_equal(greys, expected)
    assert none == ""
    assert notes == f"{ignored} and was ignored"


def test_an_invalid_padding_limit_is_ignored() -> None:
    pixels = TWELVE.copy()
    pixels[:9] = 4095
    expected, _ = read(pixels, PixelPaddingValue=4095)
    greys, _ = read(pixels, PixelPaddingValue=4095, PixelPaddingRangeLimit=b"\x01")
    np.testing.assert_array_equal(greys, expected)
    assert not greys[:9].any()


def test_a_lower_case_function_is_applied_and_noted() -> None:
    for function in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        expected, none = read(TWELVE, **WINDOW, VOILUTFunction=function)
        greys, notes = read(TWELVE, **WINDOW, VOILUTFunction=function.lower())
        np.testing.assert_array_equal(greys, expected)
        assert (none, notes) == ("", "VOILUTFunction is not in upper case")


@pytest.mark.parametrize("hot", [0, 65_535])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_few_hot_pixels_do_not_affect_the_grey_scale(hot: int, photometric: str) -> None:
    pixels = 20_000 + (TWELVE if photometric == "MONOCHROME2" else 4095 - TWELVE)
    pixels[40, 50:53] = hot
    greys, notes = read(pixels, photometric=photometric, BitsStored=16, HighBit=15)
    differences = np.abs(greys - GREY)
    differences[40, 50:53] = 0
    assert differences.max() <= 1
    assert set(greys[40, 50:53]) == {255 if (hot > 0) == (photometric == "MONOCHROME2") else 0}
    assert "excluded from the grey scale" in notes


@pytest.mark.parametrize("hot", [0, 65_535])
def test_a_marker_that_leaves_the_image_little_contrast_is_noted(hot: int) -> None:
    pixels = 30_000 + TWELVE
    pixels[:14, :18] = hot  # 2 % of the pixels
    _, notes = read(pixels, BitsStored=16, HighBit=15)
    assert "almost the same grey value" in notes


def test_bright_areas_that_are_not_outliers_are_kept() -> None:
    pixels = TWELVE // 2
    pixels[:30, :30] = 4095  # such as a lead marker
    pixels[95, 0] = 0
    greys, notes = read(pixels)
    assert notes == ""
    assert greys[0, 0] == 255
    assert np.abs(greys[40:95] - GREY[40:95] / 2).max() <= 1


def test_a_contradictory_high_bit_is_ignored_and_noted() -> None:
    greys, notes = read(TWELVE + 1, HighBit=15)
    assert np.abs(greys - GREY).max() <= 1
    assert "HighBit contradicts the pixels" in notes
    greys, notes = read(TWELVE, HighBit=3)
    assert np.abs(greys - GREY).max() <= 1
    assert "HighBit contradicts BitsStored" in notes


def test_unused_bits_may_contain_an_overlay_or_larger_values() -> None:
    marked = TWELVE.copy()
    marked[::3] |= 0x8000
    greys, notes = read(marked, **{"60000102": b"\x0f\0"})  # OverlayBitPosition
    assert np.abs(greys - GREY).max() <= 1
    assert notes == ""
    greys, notes = read(TWELVE * 16)
    assert np.abs(greys - GREY).max() <= 1
    assert "more bits than BitsStored" in notes


@pytest.mark.parametrize("extended", [True, False])
def test_signed_values_are_sign_extended(extended: bool) -> None:
    signed = TWELVE.astype(np.int16) - 2048
    greys, notes = read(signed if extended else signed & 4095, PixelRepresentation=1)
    assert np.abs(greys - GREY).max() <= 1
    assert notes == ""


@pytest.mark.parametrize("first", [-100, 0, 500])
def test_lookup_tables_match_pydicom(first: int) -> None:
    rescaled = {"RescaleSlope": 1, "RescaleIntercept": -200}
    table = lookup_table(first, np.arange(4096)[::-1] ** 2 // 256)
    dataset = Dataset()
    dataset.set_original_encoding(is_implicit_vr=False, is_little_endian=True)
    dataset.VOILUTSequence = table
    expected = apply_voi(TWELVE.astype(np.int32) - 200, dataset) / 65535 * 255
    signed_pixels = {"PixelRepresentation": 1} if first < 0 else {}
    greys, _ = read(
        TWELVE.astype(np.int16) if first < 0 else TWELVE,
        **rescaled,
        **signed_pixels,
        VOILUTSequence=table,
        BitsStored=13,
        HighBit=12,
    )
    assert np.abs(greys - expected).max() <= 0.5 + 1e-6


def test_an_invalid_modality_element_is_named_in_the_error() -> None:
    for elements, name in (
        ({"ModalityLUTSequence": lookup_table(0, np.arange(4096), entries=5)}, "ModalityLUTSequence"),
        ({"RescaleSlope": b"1,0", "RescaleIntercept": 0}, "RescaleSlope"),
    ):
        with pytest.raises(DataError, match=name):
            read(TWELVE, **elements)
