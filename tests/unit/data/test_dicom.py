import io
import logging
import re
import traceback
from collections.abc import Iterator
from typing import Any

import numpy as np
import pydicom
import pytest
from helpers.damaged_images import smooth_image
from helpers.dicom_files import dicom, lookup_table, with_syntax
from pydicom import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_windowing
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from pneumo.data.phantoms import draw_radiograph
from pneumo.data.radiograph import read_radiograph
from pneumo.errors import DataError

GREY = smooth_image(np.random.default_rng(0))
TWELVE = GREY.astype(np.uint16) * 16
SIGNED = (GREY.astype(int) * 100 - 12_000).astype(np.int16)
ORDER = np.random.default_rng(1).permutation(256)
RESCALED: dict[str, Any] = {"RescaleSlope": 2, "RescaleIntercept": -1000}  # TWELVE becomes -1000 to 7160


def colours(values: np.ndarray) -> dict[str, Any]:
    names = [f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue")]
    described: dict[str, Any] = {f"{name}Descriptor": [256, 0, 16] for name in names}
    return {**described, **{f"{name}Data": (values * 257).astype("<u2").tobytes() for name in names}}


RGB = np.dstack([GREY] * 3)
STORED = {
    "8 bits": dicom(GREY),
    "negative": dicom(255 - GREY, photometric="MONOCHROME1"),
    "12 bits": dicom(TWELVE, bits=12),
    "negative of 12 bits": dicom(4095 - TWELVE, bits=12, photometric="MONOCHROME1"),
    "linear window": dicom(TWELVE, bits=12, **RESCALED, WindowCenter=3080.5, WindowWidth=8161),
    "exact window": dicom(
        TWELVE, bits=12, **RESCALED, WindowCenter=[3080, 9], WindowWidth=[8160, 9], VOILUTFunction="LINEAR_EXACT"
    ),
    "empty window": dicom(TWELVE, bits=12, WindowCenter="", WindowWidth=""),
    "signed": dicom(SIGNED),
    "signed, of 8 bits": dicom((GREY.astype(int) - 128).astype(np.int8)),
    "modality table": dicom(np.argsort(ORDER).astype(np.uint8)[GREY], ModalityLUTSequence=lookup_table(0, ORDER)),
    "VOI table": dicom(TWELVE, bits=12, VOILUTSequence=lookup_table(0, np.arange(4096))),
    "VOI table of 8 bits": dicom(TWELVE, bits=12, VOILUTSequence=lookup_table(0, np.arange(4096) // 16, 8)),
    "VOI table after rescaling": dicom(
        TWELVE, bits=12, RescaleSlope=1, RescaleIntercept=100, VOILUTSequence=lookup_table(100, np.arange(4081) * 16)
    ),
    "implicit": dicom(TWELVE, bits=12, syntax=ImplicitVRLittleEndian),
    "big endian": dicom(TWELVE, bits=12, syntax=ExplicitVRBigEndian),
    "big endian without a preamble": dicom(TWELVE, bits=12, syntax=ExplicitVRBigEndian, preamble=False),
    "high bits": dicom(TWELVE << 4, BitsStored=12, HighBit=15),
    "high bits, signed": dicom(SIGNED >> 3 << 3, BitsStored=13, HighBit=15),
    "inverse": dicom(4095 - TWELVE, bits=12, PresentationLUTShape="INVERSE"),
    "negative and inverse": dicom(4095 - TWELVE, bits=12, photometric="MONOCHROME1", PresentationLUTShape="INVERSE"),
    "second window": dicom(TWELVE, bits=12, WindowCenter=[2048, 9], WindowWidth=[4096, 1]),
    "without a preamble": dicom(TWELVE, bits=12, preamble=False),
    "without a preamble, implicit": dicom(TWELVE, bits=12, preamble=False, syntax=ImplicitVRLittleEndian),
    "run lengths": dicom(TWELVE, bits=12, syntax=RLELossless),
    "signed run lengths": dicom(SIGNED, syntax=RLELossless),
    "JPEG": dicom(GREY, syntax=JPEGBaseline8Bit),
    "JPEG in colour": dicom(RGB, photometric="RGB", syntax=JPEGBaseline8Bit, PhotometricInterpretation="YBR_FULL_422"),
    "JPEG 2000": dicom(TWELVE, syntax=JPEG2000Lossless),
    "colour": dicom(RGB, photometric="RGB"),
    "colour of 16 bits": dicom(RGB.astype(np.uint16) * 257, photometric="RGB"),
    "luma": dicom(np.dstack([GREY, GREY * 0 + 128, GREY * 0 + 128]), photometric="YBR_FULL"),
    "palette": dicom(np.argsort(ORDER).astype(np.uint8)[GREY], photometric="PALETTE COLOR", **colours(ORDER)),
}


@pytest.mark.parametrize("kind", STORED)
def test_all_encodings_decode_to_the_same_grey_values(kind: str) -> None:
    image, notes = read_radiograph(STORED[kind])
    assert notes == ()
    assert np.abs(np.asarray(image).astype(int) - GREY).max() <= (2 if "JPEG" in kind else 1)


def test_8_bit_values_are_unchanged_and_deeper_values_are_stretched() -> None:
    dull = 60 + GREY // 2
    np.testing.assert_array_equal(np.asarray(read_radiograph(dicom(dull)).image), dull)
    same = np.asarray(read_radiograph(dicom(dull, RescaleSlope=1, RescaleIntercept=0)).image)
    np.testing.assert_array_equal(same, dull)
    assert read_radiograph(dicom(dull.astype(np.uint16), bits=12)).image.getextrema() == (0, 255)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("values", [SIGNED, TWELVE])
def test_padding_is_black_and_does_not_affect_the_grey_scale(photometric: str, values: np.ndarray) -> None:
    value = -20_000 if values is SIGNED else 60_000
    padded = np.pad(values, 9, constant_values=value)
    padded[0, 0] += 5  # the padding's range
    image = read_radiograph(
        dicom(padded, photometric=photometric, PixelPaddingValue=value, PixelPaddingRangeLimit=value + 5)
    ).image
    inside = np.asarray(image)[9:-9, 9:-9].astype(int)
    assert np.abs(inside - (GREY if photometric == "MONOCHROME2" else 255 - GREY)).max() <= 1
    assert np.asarray(image).sum() == inside.sum()


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(2048, 4096), (900.5, 700), (2000, 1), (-100, 3000)])
def test_windows_match_pydicom(function: str, center: float, width: float) -> None:
    window: dict[str, Any] = {"WindowCenter": center, "WindowWidth": width, "VOILUTFunction": function}
    dataset = Dataset()
    dataset.PhotometricInterpretation, dataset.BitsStored, dataset.PixelRepresentation = "MONOCHROME2", 12, 0
    for name, value in window.items():
        setattr(dataset, name, value)
    with np.errstate(over="ignore"):
        expected = apply_windowing(TWELVE, dataset) / 4095 * 255
    greys = np.asarray(read_radiograph(dicom(TWELVE, bits=12, **window)).image)
    assert np.abs(greys - expected).max() <= 0.5 + 1e-6


@pytest.mark.parametrize(
    ("elements", "mismatch"),
    [
        ({"ViewPosition": "LL"}, "lateral"),
        ({"Modality": "CT"}, "not a plain radiograph"),
        ({"BodyPartExamined": "HAND"}, "chest"),
    ],
)
def test_a_header_that_contradicts_a_frontal_chest_radiograph_is_noted(elements: dict[str, Any], mismatch: str) -> None:
    _, notes = read_radiograph(dicom(GREY, **elements))
    assert len(notes) == 1
    assert mismatch in notes[0]


def test_an_unspecific_header_is_not_noted() -> None:
    assert read_radiograph(dicom(GREY, Modality="OT", ViewPosition=None, BodyPartExamined=None)).notes == ()


@pytest.mark.parametrize(
    ("number", "marker", "package"), [("80", 0xF7, "pyjpegls"), ("70", 0xC3, "pylibjpeg pylibjpeg-libjpeg")]
)
def test_a_missing_decoder_is_named(number: str, marker: int, package: str) -> None:
    syntax = UID(f"1.2.840.10008.1.2.4.{number}")
    if get_decoder(syntax).is_available:
        pytest.skip("the decoder is installed")
    content = dicom(GREY, syntax=JPEGBaseline8Bit).replace(b"\xff\xc0", bytes([0xFF, marker]))
    for claimed in (syntax, JPEGBaseline8Bit, ExplicitVRLittleEndian):
        with pytest.raises(DataError, match=rf"JPEG.*, {re.escape(syntax)}, .*pip install {package},"):
            read_radiograph(with_syntax(content, claimed))


SECRETS = ("ZEBEDEE^QUINCE", "PID7731XK", "19480203")
TEXTS = (
    *("PatientName", "PatientID", "PatientBirthDate", "ImageComments", "InstitutionName", "AccessionNumber"),
    *("Modality", "BodyPartExamined", "ViewPosition", "PhotometricInterpretation", "NumberOfFrames", "WindowCenter"),
    *("WindowWidth", "RescaleSlope", "RescaleIntercept", "VOILUTFunction", "PresentationLUTShape"),
    *("SOPClassUID", "SpecificCharacterSet"),
)


def planted() -> Iterator[bytes]:
    """Yield files with patient data in each text element, then damaged copies of them."""
    generator = np.random.default_rng(0)
    always: dict[str, Any] = dict(zip(TEXTS[:6], SECRETS * 2, strict=True))
    item = lookup_table(0, np.arange(4096))
    item[0].LUTExplanation = SECRETS[0]
    whole = [dicom(TWELVE, bits=12, **always, VOILUTSequence=item), dicom(GREY, **always, syntax=JPEGBaseline8Bit)]
    whole += [
        dicom(TWELVE, bits=12, **{**always, "WindowCenter": 5, "RescaleIntercept": 0, text: secret.encode()})
        for text in TEXTS
        for secret in SECRETS
    ]
    uid = b"1.2.840.10008.1.2.1\0"
    whole += [content.replace(uid, f"{SECRETS[0]:<20}".encode()) for content in whole[:2]]
    yield from whole
    for content in whole:
        yield content[: generator.integers(132, len(content))]
        for _ in range(3):
            damaged = np.frombuffer(content, np.uint8).copy()
            damaged[generator.integers(132, 1200, 6)] ^= generator.integers(1, 256, 6, dtype=np.uint8)
            yield damaged.tobytes()


def test_the_reader_does_not_leak_patient_data(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    contents = list(planted())
    caplog.clear()  # messages of pydicom while writing the files
    caplog.set_level(logging.DEBUG)
    texts: list[str] = []
    read = 0
    for content in contents:
        try:
            texts += read_radiograph(content).notes
            read += 1
        except DataError as error:
            texts += ["".join(traceback.format_exception(error)), repr(error.__context__)]
    texts += [caplog.text, *capfd.readouterr()]
    assert 30 < read < 200
    assert len(texts) > 100
    assert not [text for text in texts for secret in SECRETS if secret in text or secret[:7] in text]


def test_pydicom_itself_leaks_what_the_reader_suppresses(caplog: pytest.LogCaptureFixture) -> None:
    content = dicom(GREY, SpecificCharacterSet=SECRETS[0].encode())
    with pytest.warns(UserWarning, match=re.escape(SECRETS[0])):
        assert pydicom.dcmread(io.BytesIO(content)).Modality == "DX"
    assert SECRETS[0] in caplog.text


@pytest.mark.parametrize("attribute", [{"photometric": "MONOCHROME1"}, {"PresentationLUTShape": "INVERSE"}])
def test_an_image_that_is_inverted_by_mistake_is_noted(attribute: dict[str, Any]) -> None:
    pixels = draw_radiograph(np.random.default_rng(0), np.random.default_rng(1), "none")
    assert any("looks like a negative" in note for note in read_radiograph(dicom(pixels, **attribute)).notes)
    assert read_radiograph(dicom(255 - pixels, **attribute)).notes == ()
    assert read_radiograph(dicom(255 - pixels)).notes == ()  # the header requires no inversion
