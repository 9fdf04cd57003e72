import io
import logging
import os
import re
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers.damaged_images import encode_image, huge_png, smooth_image, write_damaged
from helpers.dicom_files import dicom
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pneumo.common.input_format import InputFormat
from pneumo.data.decoder_limits import LOG_SUPPRESSION
from pneumo.data.grey import square
from pneumo.data.radiograph import DecodedImage, decode, decode_with_notes, read_radiograph
from pneumo.errors import DataError

GREY = smooth_image(np.random.default_rng(0))
OTHERS = [Image.fromarray(np.roll(GREY, shift)) for shift in (10, 20, 30, 40)]
FORMATS = {
    "jpeg": encode_image(GREY, "JPEG"),
    "colour jpeg": encode_image(Image.fromarray(GREY).convert("RGB"), "JPEG"),
    "cmyk": encode_image(Image.fromarray(GREY).convert("CMYK"), "TIFF"),
    "png": encode_image(GREY, "PNG"),
    "transparent png": encode_image(Image.fromarray(np.dstack([GREY] * 3 + [GREY[::-1]])), "PNG"),
    "16-bit png": encode_image(GREY.astype(np.uint16) * 257, "PNG"),
    "16-bit tiff": encode_image(GREY.astype(np.uint16) * 257, "TIFF"),
    "tiff": encode_image(GREY, "TIFF", compression="tiff_deflate"),
    "bmp": encode_image(GREY, "BMP"),
    "webp": encode_image(GREY, "WEBP"),
    "palette gif": encode_image(GREY, "GIF"),
}


@pytest.mark.parametrize("form", FORMATS)
def test_prediction_and_training_read_the_same_pixels(form: str, tmp_path: Path) -> None:
    path = tmp_path / "image.any"  # the format is detected from the content
    path.write_bytes(FORMATS[form])
    image, notes = read_radiograph(path)
    assert (image.mode, image.size, notes) == ("L", (120, 96), ())
    np.testing.assert_array_equal(square(image, InputFormat(48, 0.857)), decode(path, InputFormat(48, 0.857)))
    assert read_radiograph(FORMATS[form]).image.tobytes() == image.tobytes()
    if form not in ("jpeg", "colour jpeg", "webp"):
        np.testing.assert_array_equal(np.asarray(image), GREY)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_a_photograph_is_reoriented_and_noted(form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise
    lossless = {"lossless": True} if form == "WEBP" else {}
    image, notes = read_radiograph(encode_image(np.rot90(GREY), form, exif=exif, **lossless))
    assert image.size == (120, 96)
    assert len(notes) == 1
    assert "EXIF" in notes[0]
    assert np.abs(np.asarray(image).astype(int) - GREY).mean() < 4
    exif[0x0112] = 1
    assert read_radiograph(encode_image(GREY, form, exif=exif)).notes == ()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_training_and_prediction_reorient_a_photograph_identically(form: str, orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "image.any"
    path.write_bytes(encode_image(GREY, form, exif=exif))
    image, notes = read_radiograph(path)
    pixels, training_notes = decode_with_notes(path, InputFormat(48))
    np.testing.assert_array_equal(pixels, square(image, InputFormat(48)))
    assert training_notes == notes
    assert len(notes) == (orientation > 1)
    assert (image.width > image.height) == (orientation < 5)


def test_a_phone_photograph_with_a_preview_is_one_image() -> None:
    preview = Image.fromarray(GREY[:48, :60])
    image, _ = read_radiograph(encode_image(GREY, "MPO", save_all=True, append_images=[preview]))
    assert image.size == (120, 96)


def test_values_that_use_few_bits_are_noted() -> None:
    image, notes = read_radiograph(
        encode_image(GREY.astype(np.uint16) * 16, "PNG")
    )  # 12 of 16 bits, not declared anywhere
    assert image.getextrema() == (0, 16)
    assert notes == ("12-bit values in a 16-bit file look too dark: multiply them by 16 and save the file again",)


REJECTED = {
    "empty": (b"", r"empty \(0 bytes\)"),
    "text": (b"<html>not found</html>", "is text"),
    "zip": (b"PK\x03\x04" + bytes(99), "ZIP archive"),
    "gzip": (b"\x1f\x8b" + bytes(99), "gzip"),
    "pdf": (b"%PDF-1.7\n", "PDF"),
    "heic": (b"\0\0\0\x18ftypheic" + bytes(99), "HEIC"),
    "drawing": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n", "vector drawing"),
    "noise": (bytes(range(128, 256)), "not an image in a supported format"),
    "header of a png": (FORMATS["png"].replace(b"IHDR", b"IHDX"), "damaged PNG"),
    "truncated jpeg": (FORMATS["jpeg"][:-99], "truncated"),
    "small": (encode_image(GREY[:31], "PNG"), "has 120 x 31 pixels, but each side must have at least 32"),
    "flat": (encode_image(np.full((40, 40), 7, np.uint8), "PNG"), "single grey value, 7"),
    "one pixel": (encode_image(GREY[:1, :1], "PNG"), "has 1 x 1 pixels"),
    "line": (encode_image(np.tile(GREY[:1], 50), "PNG"), "has 6000 x 1 pixels"),
    "flat and deep": (encode_image(np.full((40, 40), 7 * 257, np.uint16), "PNG"), "single grey value, 7"),
    "flat dicom": (dicom(GREY * 0 + 7), "single grey value"),
    "floating": (encode_image(GREY.astype(np.float32), "TIFF"), "floating-point"),
    "huge png": (huge_png(), "more than 178,956,970 pixels"),
    "large png": (huge_png(10_000), "truncated|damaged"),  # Pillow would warn about its size
    "frames": (encode_image(GREY, "GIF", save_all=True, append_images=OTHERS), "has several frames"),
    "pages": (encode_image(GREY, "TIFF", save_all=True, append_images=OTHERS[:1]), "has several frames"),
    "report": (dicom(GREY, Rows=None, PixelData=None), "without an image, such as a report"),
    "no pixels": (dicom(GREY, PixelData=None), "an image header but no pixels"),
    "huge dicom": (dicom(GREY, Rows=30_000, Columns=30_000), "30000 x 30000 pixels, but the maximum is 178,956,970"),
    "small dicom": (dicom(GREY[:20]), "120 x 20"),
    "frames of dicom": (dicom(GREY, NumberOfFrames=2, Rows=48), "several frames"),
    "truncated dicom": (dicom(GREY)[:-99], "truncated"),
    "32 bits": (dicom(GREY, BitsAllocated=32), "neither 8 nor 16"),
    "nan": (dicom(GREY, RescaleSlope="nan", RescaleIntercept="0"), "not a finite number"),
    "infinite": (dicom(GREY, RescaleSlope="inf", RescaleIntercept="0"), "not a finite number"),
    "floating dicom": (dicom(GREY, PixelData=None, FloatPixelData=GREY.astype("<f4").tobytes()), "floating-point"),
    "padding": (dicom(GREY * 0 + 3, PixelPaddingValue=3), "only padding and no image"),
    "invalid element": (dicom(GREY, RescaleSlope=b"abc", RescaleIntercept="0"), "not a finite number"),
    "unknown syntax": (dicom(GREY).replace(b"10008.1.2.1", b"10008.1.9.9"), "does not decode"),
}


@pytest.mark.parametrize("kind", REJECTED)
def test_rejected_files_have_a_reason(kind: str) -> None:
    content, reason = REJECTED[kind]
    with pytest.raises(DataError, match=reason) as caught:
        read_radiograph(content)
    assert re.fullmatch(
        r"(is|has|contains|declares) .*\.", str(caught.value)
    )  # a sentence when prefixed with the file name


def test_paths_that_are_not_regular_files_are_rejected(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")  # opening it would block forever
    for path, reason in {
        tmp_path: "not a regular file",
        tmp_path / "pipe.png": "not a regular file",
        tmp_path / "no": "No such file",
    }.items():
        with pytest.raises(DataError, match=reason):
            read_radiograph(path)


def attempt(source: Path | bytes) -> DecodedImage | DataError:
    try:
        return read_radiograph(source)
    except DataError as error:
        return error


def test_damaged_files_raise_only_data_errors(tmp_path: Path) -> None:
    files = write_damaged(tmp_path)
    assert len(files) == 300
    results = {file: attempt(file.path) for file in files}
    read = {file for file, result in results.items() if isinstance(result, DecodedImage)}
    assert not [file for file in files if file.readable not in (None, file in read)]
    assert {file.kind for file in read} > {"wrong suffix", "bits flipped"}
    # Messages of decoders may quote the content of the file.
    assert all(error.__context__ is None for error in results.values() if isinstance(error, DataError))


def test_damaged_files_are_reproducible_from_a_seed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    pairs = zip(*(write_damaged(tmp_path / name, 1, 60) for name in ("one", "two")), strict=True)
    assert all(one.path.read_bytes() == two.path.read_bytes() and one[1:] == two[1:] for one, two in pairs)


STARTS = [content[:size] for content in (*FORMATS.values(), dicom(GREY)) for size in (4, 30, 200, 400)]


@settings(max_examples=200, deadline=None)
@given(start=st.sampled_from(STARTS), rest=st.binary(max_size=500))
def test_arbitrary_bytes_after_a_valid_start_are_read_or_rejected(start: bytes, rest: bytes) -> None:
    result = attempt(start + rest)
    assert result.image.mode == "L" if isinstance(result, DecodedImage) else str(result).endswith(".")


def test_warnings_are_suppressed_until_the_last_reader_leaves() -> None:
    loggers = [logging.getLogger(name) for name in ("pydicom", "pydicom.pixels", "PIL.TiffImagePlugin")]
    handlers = [logging.StreamHandler(io.StringIO()), logging.StreamHandler(io.StringIO())]
    logging.getLogger().addHandler(handlers[0])
    loggers[0].addHandler(handlers[1])  # like the one that pydicom.config.debug adds
    entered, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with LOG_SUPPRESSION:
            entered.set()
            leave.wait(10)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        thread = threading.Thread(target=stay)
        with LOG_SUPPRESSION:
            thread.start()
            assert entered.wait(10)
        warnings.warn("suppressed while the other thread reads", stacklevel=1)
        for logger in loggers:
            logger.critical("suppressed")
        leave.set()
        thread.join()
        with pytest.raises(UserWarning):
            warnings.warn("shown again", stacklevel=1)
    for logger in loggers:
        logger.critical("logged")
    logging.getLogger().removeHandler(handlers[0])
    loggers[0].removeHandler(handlers[1])
    assert [handler.stream.getvalue().split() for handler in handlers] == [["logged"] * 3, ["logged"] * 2]
