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

from pneumo.data.decoder_limits import SILENCE
from pneumo.data.grey import square
from pneumo.data.radiograph import DecodedImage, decode, decode_with_notes, read_radiograph
from pneumo.errors import DataError

GREY = smooth_image(np.random.default_rng(0))
OTHERS = [Image.fromarray(np.roll(GREY, shift)) for shift in (10, 20, 30, 40)]
FORMATS = {
    "jpeg": encode_image(GREY, "JPEG"),
    "colour jpeg": encode_image(Image.fromarray(GREY).convert("RGB"), "JPEG"),
    "inks": encode_image(Image.fromarray(GREY).convert("CMYK"), "TIFF"),
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
def test_a_prediction_sees_the_pixels_of_training(form: str, tmp_path: Path) -> None:
    path = tmp_path / "film.any"  # the content tells the format
    path.write_bytes(FORMATS[form])
    image, notes = read_radiograph(path)
    assert (image.mode, image.size, notes) == ("L", (120, 96), ())
    np.testing.assert_array_equal(square(image, 48, 0.857), decode(path, 48, 0.857))
    assert read_radiograph(FORMATS[form]).image.tobytes() == image.tobytes()
    if form not in ("jpeg", "colour jpeg", "webp"):
        np.testing.assert_array_equal(np.asarray(image), GREY)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_a_photograph_is_turned_upright_and_says_so(form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right by a quarter
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
def test_training_turns_a_photograph_as_prediction_does(form: str, orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "film.any"
    path.write_bytes(encode_image(GREY, form, exif=exif))
    image, notes = read_radiograph(path)
    pixels, training_notes = decode_with_notes(path, 48)
    np.testing.assert_array_equal(pixels, square(image, 48))
    assert training_notes == notes
    assert len(notes) == (orientation > 1)
    assert (image.width > image.height) == (orientation < 5)


def test_a_phones_photograph_with_a_preview_behind_it_is_one() -> None:
    preview = Image.fromarray(GREY[:48, :60])
    image, _ = read_radiograph(encode_image(GREY, "MPO", save_all=True, append_images=[preview]))
    assert image.size == (120, 96)


def test_few_greys_are_told() -> None:
    image, notes = read_radiograph(
        encode_image(GREY.astype(np.uint16) * 16, "PNG")
    )  # 12 of 16 bits, which nothing tells
    assert image.getextrema() == (0, 16)
    assert notes == (
        "it holds 12-bit values in a 16-bit file and comes out too dark: multiply its values by 16 and save it again",
    )


REFUSED = {
    "empty": (b"", r"empty \(0 bytes\)"),
    "text": (b"<html>not found</html>", "is text"),
    "zip": (b"PK\x03\x04" + bytes(99), "ZIP archive"),
    "gzip": (b"\x1f\x8b" + bytes(99), "gzip"),
    "pdf": (b"%PDF-1.7\n", "PDF"),
    "heic": (b"\0\0\0\x18ftypheic" + bytes(99), "HEIC"),
    "drawing": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n", "drawing"),
    "noise": (bytes(range(128, 256)), "no picture in a format that is read"),
    "header of a png": (FORMATS["png"].replace(b"IHDR", b"IHDX"), "damaged PNG"),
    "cut jpeg": (FORMATS["jpeg"][:-99], "cut off"),
    "small": (encode_image(GREY[:31], "PNG"), "has 120 x 31 pixels, and each side of a radiograph has 32"),
    "flat": (encode_image(np.full((40, 40), 7, np.uint8), "PNG"), "one grey, 7"),
    "one pixel": (encode_image(GREY[:1, :1], "PNG"), "has 1 x 1 pixels"),
    "line": (encode_image(np.tile(GREY[:1], 50), "PNG"), "has 6000 x 1 pixels"),
    "flat and deep": (encode_image(np.full((40, 40), 7 * 257, np.uint16), "PNG"), "one grey, 7"),
    "flat dicom": (dicom(GREY * 0 + 7), "one grey"),
    "floating": (encode_image(GREY.astype(np.float32), "TIFF"), "floating-point"),
    "huge png": (huge_png(), "more than 178,956,970 pixels"),
    "large png": (huge_png(10_000), "cut off|damaged"),  # Pillow would warn of its size
    "frames": (encode_image(GREY, "GIF", save_all=True, append_images=OTHERS), "has several frames"),
    "pages": (encode_image(GREY, "TIFF", save_all=True, append_images=OTHERS[:1]), "has several frames"),
    "report": (dicom(GREY, Rows=None, PixelData=None), "without a picture, such as a report"),
    "no pixels": (dicom(GREY, PixelData=None), "a picture's header and no pixels"),
    "huge dicom": (dicom(GREY, Rows=30_000, Columns=30_000), "30000 x 30000 pixels, and 178,956,970"),
    "small dicom": (dicom(GREY[:20]), "120 x 20"),
    "frames of dicom": (dicom(GREY, NumberOfFrames=2, Rows=48), "several frames"),
    "cut dicom": (dicom(GREY)[:-99], "cut off"),
    "32 bits": (dicom(GREY, BitsAllocated=32), "neither 8 nor 16 bits"),
    "nan": (dicom(GREY, RescaleSlope="nan", RescaleIntercept="0"), "no finite number"),
    "infinite": (dicom(GREY, RescaleSlope="inf", RescaleIntercept="0"), "no finite number"),
    "floating dicom": (dicom(GREY, PixelData=None, FloatPixelData=GREY.astype("<f4").tobytes()), "floating-point"),
    "padding": (dicom(GREY * 0 + 3, PixelPaddingValue=3), "padding and no film"),
    "wrong elements": (dicom(GREY, RescaleSlope=b"abc", RescaleIntercept="0"), "no finite number"),
    "unknown syntax": (dicom(GREY).replace(b"10008.1.2.1", b"10008.1.9.9"), "does not decode"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_says_why(kind: str) -> None:
    content, reason = REFUSED[kind]
    with pytest.raises(DataError, match=reason) as caught:
        read_radiograph(content)
    assert re.fullmatch(r"(is|has|holds|says) .*\.", str(caught.value))  # after the file's name it is a sentence


def test_paths_that_are_no_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")  # opening it would wait for ever
    for path, reason in {
        tmp_path: "no file",
        tmp_path / "pipe.png": "no file",
        tmp_path / "no": "No such file",
    }.items():
        with pytest.raises(DataError, match=reason):
            read_radiograph(path)


def attempt(source: Path | bytes) -> DecodedImage | DataError:
    try:
        return read_radiograph(source)
    except DataError as error:
        return error


def test_damaged_files_raise_nothing_else(tmp_path: Path) -> None:
    files = write_damaged(tmp_path)
    assert len(files) == 300
    came = {file: attempt(file.path) for file in files}
    read = {file for file, what in came.items() if isinstance(what, DecodedImage)}
    assert not [file for file in files if file.readable not in (None, file in read)]
    assert {file.kind for file in read} > {"wrong suffix", "bits flipped"}
    # Decoders' messages may quote what is in the file.
    assert all(error.__context__ is None for error in came.values() if isinstance(error, DataError))


def test_the_damaged_files_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    pairs = zip(*(write_damaged(tmp_path / name, 1, 60) for name in ("one", "two")), strict=True)
    assert all(one.path.read_bytes() == two.path.read_bytes() and one[1:] == two[1:] for one, two in pairs)


STARTS = [content[:size] for content in (*FORMATS.values(), dicom(GREY)) for size in (4, 30, 200, 400)]


@settings(max_examples=200, deadline=None)
@given(start=st.sampled_from(STARTS), rest=st.binary(max_size=500))
def test_whatever_follows_a_good_start_is_read_or_refused(start: bytes, rest: bytes) -> None:
    came = attempt(start + rest)
    assert came.image.mode == "L" if isinstance(came, DecodedImage) else str(came).endswith(".")


def test_silence_ends_with_the_last_reader() -> None:
    loggers = [logging.getLogger(name) for name in ("pydicom", "pydicom.pixels", "PIL.TiffImagePlugin")]
    heard = [logging.StreamHandler(io.StringIO()), logging.StreamHandler(io.StringIO())]
    logging.getLogger().addHandler(heard[0])
    loggers[0].addHandler(heard[1])  # as pydicom.config.debug adds one
    entered, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with SILENCE:
            entered.set()
            leave.wait(10)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        thread = threading.Thread(target=stay)
        with SILENCE:
            thread.start()
            assert entered.wait(10)
        warnings.warn("kept back while the other reads", stacklevel=1)
        for logger in loggers:
            logger.critical("kept back")
        leave.set()
        thread.join()
        with pytest.raises(UserWarning):
            warnings.warn("shown again", stacklevel=1)
    for logger in loggers:
        logger.critical("heard")
    logging.getLogger().removeHandler(heard[0])
    loggers[0].removeHandler(heard[1])
    assert [handler.stream.getvalue().split() for handler in heard] == [["heard"] * 3, ["heard"] * 2]
