import zlib
from typing import Any

import numpy as np
import pytest
from helpers.damaged_images import smooth_image
from helpers.dicom_files import dicom, with_syntax
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from pneumo.data.codestreams import inspect_codestream
from pneumo.data.radiograph import read_radiograph
from pneumo.errors import DataError

GREY = smooth_image(np.random.default_rng(0))
TWELVE = GREY.astype(np.uint16) * 16
RGB = np.dstack([GREY] * 3)
LUMA = np.dstack([GREY, GREY * 0 + 128, GREY * 0 + 128])
COLOUR = np.dstack([GREY, GREY[::-1], 255 - GREY])


@pytest.mark.parametrize(
    "declared", [ExplicitVRLittleEndian, JPEGBaseline8Bit, JPEGLosslessSV1, JPEG2000Lossless, RLELossless]
)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGBaseline8Bit, JPEG2000Lossless, RLELossless])
def test_pixels_are_read_by_their_actual_encoding(syntax: UID, declared: UID) -> None:
    image, notes = read_radiograph(with_syntax(dicom(GREY, syntax=syntax), declared))
    assert np.abs(np.asarray(image).astype(int) - GREY).max() <= (2 if syntax == JPEGBaseline8Bit else 0)
    assert len(notes) == (syntax != declared)
    assert all(note.startswith("pixels are") for note in notes)


def test_an_unknown_transfer_syntax_is_ignored_if_the_encoding_is_detected() -> None:
    image, _ = read_radiograph(with_syntax(dicom(GREY, syntax=JPEGBaseline8Bit), UID("1.2.840.10008.1.9.9")))
    assert np.abs(np.asarray(image).astype(int) - GREY).max() <= 2


@pytest.mark.parametrize(
    ("pixels", "photometric", "declared"),
    [
        (RGB, "RGB", "YBR_FULL_422"),
        (RGB, "RGB", "YBR_FULL"),
        (LUMA, "YBR_FULL", "YBR_FULL_422"),
        (LUMA, "YBR_FULL", "RGB"),
        (RGB, "RGB", "MONOCHROME2"),
    ],
)
def test_grey_pixels_are_read_regardless_of_the_declared_colours(
    pixels: np.ndarray, photometric: str, declared: str
) -> None:
    image, notes = read_radiograph(dicom(pixels, photometric=photometric, PhotometricInterpretation=declared))
    np.testing.assert_array_equal(np.asarray(image), GREY)
    assert notes == ("pixels are grey, which contradicts the PhotometricInterpretation",)


@pytest.mark.parametrize("declared", ["YBR_FULL_422", "MONOCHROME2"])
def test_colours_that_contradict_the_header_are_rejected(declared: str) -> None:
    with pytest.raises(DataError, match="contradict its PhotometricInterpretation"):
        read_radiograph(dicom(COLOUR, photometric="RGB", PhotometricInterpretation=declared))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (with_syntax(dicom(GREY, PixelData=b"x" * 500), JPEGBaseline8Bit), "contradict its transfer syntax"),
        (
            with_syntax(dicom(GREY, PixelData=b"\xfe\xff\0\xe0" + bytes(50)), ExplicitVRLittleEndian),
            "contradict its transfer",
        ),
        (dicom(GREY, syntax=JPEGBaseline8Bit, Rows=95), "size .*differs"),
        (dicom(GREY, syntax=JPEG2000Lossless, Columns=99), "size .*differs"),
        (dicom(TWELVE, BitsAllocated=8, BitsStored=8, HighBit=7), "twice as many bytes"),
        (dicom(GREY, Rows=40), "twice as many bytes"),
        (dicom(GREY, Rows=97), "truncated"),
    ],
)
def test_pixels_that_contradict_the_header_are_rejected(content: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read_radiograph(content)


def test_an_8_bit_jpeg_overrides_a_16_bit_header() -> None:
    elements: dict[str, Any] = {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11}
    image, notes = read_radiograph(dicom(GREY, syntax=JPEGBaseline8Bit, **elements))
    assert np.abs(np.asarray(image).astype(int) - GREY).max() <= 2
    assert notes == ("pixels have 8 bits, fewer than BitsAllocated",)


def test_a_file_that_mentions_the_deflated_syntax_is_read() -> None:
    content = dicom(GREY, ImageComments=f"received as {DeflatedExplicitVRLittleEndian}")
    np.testing.assert_array_equal(np.asarray(read_radiograph(content).image), GREY)


@pytest.mark.parametrize("preamble", [b"", bytes(128) + b"DICM"])
@pytest.mark.parametrize("padding", [0, 1 << 17])
@pytest.mark.parametrize("implicit", [False, True])
def test_a_deflated_file_is_rejected_before_decompression(
    preamble: bytes, padding: int, implicit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def element(tag: bytes, kind: bytes, value: bytes) -> bytes:
        wide = implicit or kind == b"OB"
        length = len(value).to_bytes(4 if wide else 2, "little")
        return tag + (b"" if implicit else kind + b"\0\0" * wide) + length + value

    monkeypatch.delattr(zlib, "decompress")
    meta = element(b"\x02\0\0\0", b"UL", bytes(4)) + element(b"\x02\0\x01\0", b"OB", bytes(padding + 2))
    meta += element(b"\x02\0\x10\0", b"UI", DeflatedExplicitVRLittleEndian.encode())
    with pytest.raises(DataError, match="deflated transfer syntax"):
        read_radiograph(preamble + meta + bytes(500))


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8", b"\xff\x4f\xff\x51", b"\1\0\0\0\x40\0\0\0"]))
def test_arbitrary_bytes_can_be_inspected(content: bytes, start: bytes) -> None:
    codestream = inspect_codestream(start + content)
    assert isinstance(codestream.syntaxes, tuple)
    assert ImplicitVRLittleEndian not in codestream.syntaxes
