"""Images with more than 8 bits or rare encodings: each matches the reference within rounding, or is rejected."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.damaged_images import encode_image, smooth_image
from helpers.tiff_files import Order, tiff
from numpy.typing import NDArray
from PIL import Image

from pneumo.common.input_format import InputFormat
from pneumo.data.radiograph import decode_with_notes, read_radiograph
from pneumo.errors import DataError

GREY = smooth_image(np.random.default_rng(0))
DEEP = np.random.default_rng(1).integers(0, 257, GREY.shape).astype(np.uint16) + GREY * np.uint16(256)  # 0 to 65535
REFERENCE = (DEEP / 257).round()
TWELVE = (DEEP / 16.0036630).round().astype(np.uint16)  # 0 to 4095
SHIFTED = {kind: (DEEP.astype(np.int64) - 32768).astype(kind) for kind in ("i2", "i4")}
ALPHA = GREY[::-1] // 2 + 128


def channels(*planes: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.dstack(planes)


def colour_map(scale: int, depth: int = 8) -> dict[int, list[int]]:
    return {320: [value * scale for value in range(1 << depth)] * 3}


READ: dict[str, tuple[int, Callable[[Order], bytes]]] = {
    "MinIsWhite": (0, lambda order: tiff(255 - GREY, 0, order)),
    "8 bits": (0, lambda order: tiff(GREY, 1, order)),
    "4 bits": (17, lambda order: tiff(GREY >> 4, 1, order, bits=4)),
    "4 bits, MinIsWhite": (17, lambda order: tiff(15 - (GREY >> 4), 0, order, bits=4)),
    "16 bits": (0, lambda order: tiff(DEEP, 1, order)),
    "grey and alpha": (0, lambda order: tiff(channels(GREY, ALPHA), 1, order, tags={338: [2]})),
    "grey and more": (0, lambda order: tiff(channels(GREY, ALPHA), 1, order, tags={338: [0]})),
    "RGB": (0, lambda order: tiff(channels(GREY, GREY, GREY), 2, order)),
    "planar RGB": (0, lambda order: tiff(channels(GREY, GREY, GREY), 2, order, planar=True)),
    "planar grey": (0, lambda order: tiff(GREY, 1, order, planar=True)),  # a single plane makes no difference
    "16-bit RGB": (1, lambda order: tiff(channels(DEEP, DEEP, DEEP), 2, order)),
    "16-bit RGBA": (1, lambda order: tiff(channels(DEEP, DEEP, DEEP, DEEP[::-1]), 2, order, tags={338: [2]})),
    "RGBA": (0, lambda order: tiff(channels(GREY, GREY, GREY, ALPHA), 2, order, tags={338: [2]})),
    "16-bit CMYK": (1, lambda order: tiff(channels(*[0 * DEEP] * 3, 65535 - DEEP), 5, order)),
    "palette": (0, lambda order: tiff(GREY, 3, order, tags=colour_map(257))),
    "4-bit palette": (17, lambda order: tiff(GREY >> 4, 3, order, bits=4, tags=colour_map(4369, 4))),
}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", READ)
def test_supported_tiffs_match_the_reference(kind: str, order: Order) -> None:
    tolerance, write = READ[kind]
    image, notes = read_radiograph(write(order))
    assert notes == ()
    reference = (GREY >> 4) * 17.0 if tolerance == 17 else REFERENCE if "16" in kind else GREY.astype(float)
    assert np.abs(np.asarray(image) - reference).max() <= tolerance % 17


@pytest.mark.parametrize("width", [120, 119])  # a row of odd width ends within a byte
def test_little_endian_tiffs_match_the_reference(width: int) -> None:
    for content in (tiff(65535 - DEEP[:, :width], 0), tiff(TWELVE[:, :width], bits=12)):
        image, notes = read_radiograph(content)
        assert notes == ()
        assert np.abs(np.asarray(image) - REFERENCE[:, :width]).max() <= 1


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_compression_preserves_deep_values(mode: str, compression: str) -> None:
    data = DEEP.astype(">u2" if mode == "I;16B" else "<u2").tobytes()
    image, _ = read_radiograph(
        encode_image(Image.frombytes(mode, GREY.shape[::-1], data), "TIFF", compression=compression)
    )
    np.testing.assert_array_equal(np.asarray(image), REFERENCE)


REJECTED = {
    "signed": (tiff(SHIFTED["i2"]), "1 channel of signed 16-bit values"),
    "signed, big-endian": (tiff(SHIFTED["i2"], order=">"), "signed 16-bit"),
    "signed 8": (tiff((GREY.astype(int) - 128).astype(np.int8)), "signed 8-bit"),
    "signed 32": (tiff(SHIFTED["i4"]), "signed 32-bit"),
    "32": (tiff(DEEP.astype(np.uint32) * 65537), "unsigned 32-bit values, MinIsBlack"),
    "32, big-endian": (tiff(DEEP.astype(np.uint32), order=">"), "unsigned 32-bit"),
    "floating": (tiff(DEEP.astype(np.float32)), "floating-point 32-bit"),
    "double": (tiff(DEEP.astype(np.float64)), "floating-point 64-bit"),
    "half": (tiff((DEEP / 65535).astype(np.float16)), "floating-point 16-bit"),
    "complex": (tiff(DEEP.astype(np.complex64)), "unusual 64-bit"),
    "planar 16": (tiff(channels(DEEP, DEEP, DEEP), 2, planar=True), "3 planar channels of unsigned 16-bit values, RGB"),
    "planar 16, big-endian": (tiff(channels(DEEP, DEEP, DEEP), 2, ">", planar=True), "3 planar channels"),
    "planar grey": (tiff(DEEP, planar=True), "1 planar channel of unsigned 16-bit values"),
    "planar 4": (tiff(GREY >> 4, planar=True, bits=4), "1 planar channel of unsigned 4-bit values"),
    "planar MinIsWhite": (tiff(GREY, 0, planar=True), "1 planar channel of unsigned 8-bit values, MinIsWhite"),
    "planar alpha": (tiff(channels(GREY, ALPHA), planar=True, tags={338: [2]}), "2 planar channels"),
    "premultiplied": (tiff(channels(GREY, ALPHA), tags={338: [1]}), "2 channels of unsigned 8-bit"),
    "16-bit alpha": (tiff(channels(DEEP, DEEP), tags={338: [2]}), "2 channels of unsigned 16-bit"),
    "MinIsWhite alpha": (tiff(channels(GREY, ALPHA), 0, tags={338: [2]}), "2 channels .* MinIsWhite"),
    "MinIsWhite, big-endian": (tiff(DEEP, 0, ">"), "unsigned 16-bit values, MinIsWhite"),
    "12, big-endian": (tiff(TWELVE, order=">", bits=12), "unsigned 12-bit"),
    "12, MinIsWhite": (tiff(TWELVE, 0, bits=12), "unsigned 12-bit"),
    "10": (tiff(TWELVE >> 2, bits=10), "unsigned 10-bit"),
    "16-bit palette": (tiff(DEEP >> 8, 3, tags=colour_map(257)), "16-bit values, palette"),
    "palette of bytes": (tiff(GREY, 3, tags=colour_map(1)), "8-bit values, palette"),  # Pillow would read it as black
    "LAB": (tiff(channels(GREY, 0 * GREY, 0 * GREY), 8), "photometric interpretation 8"),
    "no photometric": (tiff(GREY).replace(b"\x06\x01\x03\0", b"\x05\x01\x03\0"), "whether 0 is black or white"),
    "big-endian BigTIFF": (b"MM\0\x2b" + bytes(60), "BigTIFF"),
}


@pytest.mark.parametrize("kind", REJECTED)
def test_unsupported_kinds_are_rejected_with_a_description(kind: str) -> None:
    content, reason = REJECTED[kind]
    with pytest.raises(DataError, match=rf"is a .*{reason}.* PNG"):
        read_radiograph(content)


@pytest.mark.parametrize(
    "content", [b"II*\0\x08\0\0\0", b"II*\0\xff\xff\xff\x7f", b"MM\0*\0\0\0\x08", b"II+\0\x08\0\0\0" + bytes(40)]
)
def test_a_tiff_without_tags_is_rejected_as_damaged(content: bytes) -> None:
    with pytest.raises(DataError, match=r"^is a damaged TIFF"):
        read_radiograph(content)


@pytest.mark.parametrize("form", ["P5", "P2", "P6"])
@pytest.mark.parametrize("largest", [300, 1000, 4095, 16383, 65535])
def test_a_pgm_is_scaled_by_its_declared_maximum(form: str, largest: int) -> None:
    values = (DEEP / 65535 * largest).round().astype(">u2")
    body = {
        "P5": values.tobytes(),
        "P2": " ".join(map(str, values.ravel())).encode(),
        "P6": np.repeat(values[..., None], 3, 2).astype(">u2").tobytes(),
    }[form]
    image, notes = read_radiograph(f"{form} {GREY.shape[1]} {GREY.shape[0]} {largest}\n".encode() + body)
    assert notes == ()
    assert np.abs(np.asarray(image) - REFERENCE).max() <= 1


def encode_16_bit(values: NDArray[np.uint16]) -> dict[str, bytes]:
    """Encode values in all supported 16-bit formats."""
    three = channels(values, values, values)
    return {
        "png": encode_image(values, "PNG"),
        "tiff": tiff(values),
        "big-endian tiff": tiff(values, order=">"),
        "MinIsWhite": tiff(values, 0),
        "pgm": b"P5 %d %d 65535\n" % values.shape[::-1] + values.astype(">u2").tobytes(),
        "RGB tiff": tiff(three, 2),
        "RGBA tiff": tiff(channels(three, 0 * values + 65535), 2, tags={338: [2]}),
        "lzw": encode_image(values, "TIFF", compression="tiff_lzw"),
        "jpeg 2000": encode_image(values, "JPEG2000"),
    }


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_values_with_fewer_bits_than_the_file_are_noted(bits: int, tmp_path: Path) -> None:
    for name, content in encode_16_bit(DEEP >> (16 - bits)).items():
        look = "bright" if name == "MinIsWhite" else "dark"
        note = f"{bits}-bit values in a 16-bit file look too {look}: multiply them by "
        notes = read_radiograph(content).notes
        assert [text.startswith(note + str(1 << (16 - bits))) for text in notes] == [True], (name, notes)
        (tmp_path / "a.any").write_bytes(content)
        assert decode_with_notes(tmp_path / "a.any", InputFormat(64))[1] == notes


def test_values_that_use_all_bits_are_not_noted() -> None:
    for name, content in encode_16_bit(DEEP).items():
        assert read_radiograph(content).notes == (), name


def test_deep_colour_jpeg_2000_is_rejected_because_pillow_inverts_it() -> None:
    plain = encode_image(Image.fromarray(GREY).convert("RGB"), "JPEG2000")
    assert read_radiograph(plain).notes == ()
    box = plain.index(b"ihdr") + 14
    with pytest.raises(DataError, match="colour JPEG 2000"):
        read_radiograph(plain[:box] + b"\x0f" + plain[box + 1 :])
    bare = plain[plain.index(b"\xff\x4f\xff\x51") :]
    assert read_radiograph(bare).notes == ()
    with pytest.raises(DataError, match="colour JPEG 2000"):
        read_radiograph(bare[:42] + b"\x0f" + bare[43:])
