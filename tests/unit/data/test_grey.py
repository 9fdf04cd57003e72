from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pneumo.common.input_format import HISTOGRAMS, InputFormat
from pneumo.data.grey import looks_negative, square
from pneumo.data.phantoms import draw_radiograph
from pneumo.data.radiograph import decode, decode_with_notes
from pneumo.errors import DataError


def grey(seed: int = 0, height: int = 40, width: int = 56) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def stored(image: Image.Image, path: Path) -> Path:
    image.save(path)
    return path


def palette(image: Image.Image) -> Image.Image:
    shuffled = np.random.default_rng(1).permutation(256).astype(np.uint8)
    coded = Image.fromarray(np.argsort(shuffled).astype(np.uint8)[np.asarray(image)])
    coded.putpalette(np.repeat(shuffled, 3).tobytes())
    return coded


def sixteen_bit(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image).astype(np.uint16) * 257)


VARIANTS: dict[str, tuple[Callable[[Image.Image], Image.Image], str]] = {
    "RGB png": (lambda image: image.convert("RGB"), "a.png"),
    "RGBA png": (lambda image: image.convert("RGBA"), "a.png"),
    "LA png": (lambda image: image.convert("LA"), "a.png"),
    "palette png": (palette, "a.png"),
    "palette gif": (lambda image: image, "a.gif"),
    "CMYK tiff": (lambda image: image.convert("RGB").convert("CMYK"), "a.tiff"),
    "16-bit png": (sixteen_bit, "a.png"),
    "16-bit tiff": (sixteen_bit, "a.tiff"),
    "16-bit pgm": (sixteen_bit, "a.pgm"),
    "bmp": (lambda image: image, "a.bmp"),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [40, 17])
def test_all_encodings_of_a_grey_image_decode_to_the_same_pixels(variant: str, size: int, tmp_path: Path) -> None:
    image = Image.fromarray(grey())
    reference = decode(stored(image, tmp_path / "reference.png"), InputFormat(size))
    convert, name = VARIANTS[variant]
    np.testing.assert_array_equal(decode(stored(convert(image), tmp_path / name), InputFormat(size)), reference)


@pytest.mark.parametrize(
    ("size", "crop_pct", "whole"), [(192, 0.857, 224), (96, 0.857, 112), (7, 0.5, 14), (9, 1.0, 9)]
)
def test_the_center_crop_keeps_the_scale_of_the_full_image(
    size: int, crop_pct: float, whole: int, tmp_path: Path
) -> None:
    path = stored(Image.fromarray(grey(height=300, width=260)), tmp_path / "a.png")
    start = (whole - size) // 2
    middle = decode(path, InputFormat(whole))[start : start + size, start : start + size]
    np.testing.assert_array_equal(decode(path, InputFormat(size, crop_pct)), middle)


def test_a_colour_jpeg_decodes_like_a_grey_one(tmp_path: Path) -> None:
    image = Image.fromarray(grey()).resize((224, 160), Image.Resampling.BICUBIC)
    one = decode(stored(image, tmp_path / "grey.jpeg"), InputFormat(64)).astype(int)
    three = decode(stored(image.convert("RGB"), tmp_path / "colour.jpeg"), InputFormat(64)).astype(int)
    assert np.abs(one - three).max() <= 1  # colour channels are compressed separately


def test_transparency_is_ignored(tmp_path: Path) -> None:
    pixels = np.dstack([grey()] * 3 + [grey(seed=1)])
    clear = decode(stored(Image.fromarray(pixels), tmp_path / "clear.png"), InputFormat(40))
    np.testing.assert_array_equal(
        clear, decode(stored(Image.fromarray(grey()), tmp_path / "solid.png"), InputFormat(40))
    )


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 300), width=st.integers(1, 300), size=st.integers(1, 64), value=st.integers(0, 255))
def test_any_size_is_resized_to_a_square_and_a_flat_image_stays_flat(
    height: int, width: int, size: int, value: int
) -> None:
    decoded = square(Image.fromarray(np.full((height, width), value, np.uint8)), InputFormat(size))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, np.full((size, size), value))


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_unreadable_files_are_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "broken.jpeg"
    Image.fromarray(grey()).save(path)
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    with pytest.raises(DataError, match=r"broken\.jpeg is .*pneumo audit"):
        decode(path, InputFormat(32))


def test_floating_point_pixels_are_rejected(tmp_path: Path) -> None:
    path = stored(Image.fromarray(grey().astype(np.float32)), tmp_path / "a.tiff")
    with pytest.raises(DataError, match="floating-point"):
        decode(path, InputFormat(32))


def test_the_negative_of_a_radiograph_looks_negative() -> None:
    for seed in range(8):
        pixels = draw_radiograph(np.random.default_rng(seed), np.random.default_rng(seed + 9), "none")
        assert not looks_negative(Image.fromarray(pixels))
        assert looks_negative(Image.fromarray(255 - pixels))


def test_images_without_a_chest_do_not_look_negative() -> None:
    for pixels in (grey(), np.tile(np.arange(56, dtype=np.uint8) * 4, (40, 1)), np.full((40, 56), 200, np.uint8)):
        assert not looks_negative(Image.fromarray(pixels))


def test_equalized_and_scaled_histograms_do_not_depend_on_the_exposure() -> None:
    values = np.random.default_rng(0).normal(120, 20, (64, 64)).clip(0, 255).astype(np.uint8)
    darker = (0.5 * values + 10).astype(np.uint8)
    for histogram, tolerance in (("equalize", 8), ("percentile", 5)):
        form = InputFormat(64, histogram=histogram)
        one, two = (square(Image.fromarray(image), form).astype(int) for image in (values, darker))
        assert np.abs(one - two).max() <= tolerance
        assert one.min() == 0
        assert one.max() == 255
    equalized = square(Image.fromarray(values), InputFormat(64, histogram="equalize"))
    assert np.histogram(equalized, 8, (0, 256))[0] == pytest.approx(512, abs=80)


def test_equalizing_does_not_hide_low_contrast(tmp_path: Path) -> None:
    flat = Image.fromarray(np.random.default_rng(0).integers(100, 104, (64, 64), dtype=np.uint8))
    flat.save(tmp_path / "flat.png")
    notes = {h: decode_with_notes(tmp_path / "flat.png", InputFormat(64, histogram=h))[1] for h in HISTOGRAMS}
    assert notes["none"]
    assert notes["none"] == notes["equalize"] == notes["percentile"]
