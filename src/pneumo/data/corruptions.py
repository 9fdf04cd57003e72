"""Graded corruptions of greyscale radiographs for stress tests.

Severities are those of PneumoniaMNIST-C, whose images are those of Kermany et al. Source: F. Di Salvo, S. Doerrich,
C. Ledig, MedMNIST-C: Comprehensive benchmark and improved classifier robustness by simulating realistic image
corruptions, 2024, arXiv 2406.17536; values from medmnistc 0.1.0, `corruptions/registry.py`.

MedMNIST-C corrupts squares of 224 x 224 pixels. Here, images keep their aspect ratio, with up to `SHORT_SIDE` pixels on
the short side. Lengths and the grain of noise scale with it, as if the short side had 224 pixels.
JPEG compression does not scale, so it is milder than in MedMNIST-C. Lower resolutions are enlarged with bilinear
instead of box interpolation. Speckle and impulse noise are omitted because they do not occur in radiography. Motion
blur, collimation, markers, squeeze and rotation are not part of PneumoniaMNIST-C; their severities were chosen for
pneumo.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter, uniform_filter1d

SHORT_SIDE = 512  # largest short side of a corrupted image in pixels
SEVERITIES = 5
_REFERENCE_SIDE = 224  # short side in pixels to which the lengths below refer
_TEXTS = ("PORTABLE", "SUPINE  40 in", "CHEST 1 VIEW", "SEMI-ERECT")  # burnt-in text of stationary and mobile units
Pixels = npt.NDArray[np.uint8]
Unit = npt.NDArray[np.float32]  # grey values from 0 to 1
Apply = Callable[[Pixels, float, np.random.Generator], Pixels]


class Corruption(NamedTuple):
    """A corruption in five severities."""

    title: str  # title in tables and figures
    unit: str  # what the levels are
    levels: tuple[float, float, float, float, float]  # parameter of severities 1 to 5
    apply: Apply  # function of image (H, W), level and random generator


def reduce_image(image: Image.Image, short_side: int = SHORT_SIDE) -> Pixels:
    """Reduce an image of mode L to at most `short_side` pixels on its short side; return its pixels, (H, W)."""
    factor = short_side / min(image.size)
    if factor < 1:
        width, height = (max(1, round(side * factor)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image)


def corrupt(pixels: Pixels, name: str, severity: int, seed: int = 0, number: int = 0) -> Pixels:
    """Corrupt an image, (H, W), and return it with the same shape; severity 0 returns the image itself.

    Random numbers depend on the seed, the corruption and the image's number only. All severities share them, so that a
    higher severity has the same noise pattern, direction or position.

    Args:
        pixels: Grey values, (H, W).
        name: A key of `CORRUPTIONS`.
        severity: 0 to 5.
        seed: Seed of the random numbers.
        number: Number of the image in its set.
    """
    if severity == 0:
        return pixels
    corruption = CORRUPTIONS[name]
    generator = np.random.default_rng([seed, number, zlib.crc32(name.encode())])
    return corruption.apply(pixels, corruption.levels[severity - 1], generator)


def _to_unit(pixels: Pixels) -> Unit:
    return np.divide(pixels, 255, dtype=np.float32)


def _to_pixels(unit: Unit) -> Pixels:
    return np.asarray((unit * 255).round().clip(0, 255), np.uint8)


def _reference_pixels(pixels: Pixels, length: float) -> float:
    """Convert a length in pixels of an image with a short side of 224 to pixels of this image."""
    return float(length * min(pixels.shape) / _REFERENCE_SIDE)


def _resize(pixels: Pixels, shape: Sequence[int], method: Image.Resampling) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize((shape[1], shape[0]), method))


def _blur(pixels: Pixels, sigma: float, _: np.random.Generator) -> Pixels:
    blurred = gaussian_filter(pixels.astype(np.float32), _reference_pixels(pixels, sigma))
    return _to_pixels(blurred / 255)


def _blur_motion(pixels: Pixels, fraction: float, _: np.random.Generator) -> Pixels:
    """Blur along the body axis, as breathing does during the exposure."""
    length = max(2, round(fraction * pixels.shape[0]))
    return _to_pixels(uniform_filter1d(pixels.astype(np.float32), length, axis=0) / 255)


def _lower_resolution(pixels: Pixels, fraction: float, _: np.random.Generator) -> Pixels:
    scale = min(1.0, fraction * _REFERENCE_SIDE / min(pixels.shape))
    shape = [max(1, round(side * scale)) for side in pixels.shape]
    return _resize(_resize(pixels, shape, Image.Resampling.BOX), pixels.shape, Image.Resampling.BILINEAR)


def _add_noise(pixels: Pixels, draw: Callable[[Unit], npt.NDArray[np.floating]]) -> Pixels:
    """Add the noise that `draw` adds to the image at a short side of 224 pixels, with grains of that size."""
    scale = min(1.0, _REFERENCE_SIDE / min(pixels.shape))
    shape = [max(1, round(side * scale)) for side in pixels.shape]
    grains = _to_unit(_resize(pixels, shape, Image.Resampling.BOX))
    noise = (draw(grains) - grains).astype(np.float32)
    rows, columns = (np.arange(side) * few // side for side, few in zip(pixels.shape, shape, strict=True))
    return _to_pixels(_to_unit(pixels) + noise[rows[:, None], columns])


def _add_gaussian_noise(pixels: Pixels, deviation: float, generator: np.random.Generator) -> Pixels:
    return _add_noise(pixels, lambda grains: grains + deviation * generator.standard_normal(grains.shape))


def _add_shot_noise(pixels: Pixels, quanta: float, generator: np.random.Generator) -> Pixels:
    return _add_noise(pixels, lambda grains: generator.poisson(grains * quanta) / quanta)


def _compress(pixels: Pixels, quality: float, _: np.random.Generator) -> Pixels:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=int(quality))
    return np.asarray(Image.open(stream))


def _scale_contrast(pixels: Pixels, factor: float, _: np.random.Generator) -> Pixels:
    unit = _to_unit(pixels)
    mean = unit.mean()
    return _to_pixels((unit - mean) * np.float32(factor) + mean)


def _scale_brightness(pixels: Pixels, factor: float, _: np.random.Generator) -> Pixels:
    return _to_pixels(_to_unit(pixels) * np.float32(factor))


def _apply_gamma(pixels: Pixels, exponent: float, _: np.random.Generator) -> Pixels:
    table = _to_pixels((np.arange(256, dtype=np.float32) / 255) ** np.float32(exponent))
    return np.asarray(table[pixels])


def _cover_border(pixels: Pixels, fraction: float, _: np.random.Generator) -> Pixels:
    """Cover all four borders with black, as collimation or a display shutter does."""
    width = max(1, round(fraction * min(pixels.shape)))
    covered = np.zeros_like(pixels)
    inside = slice(width, -width)
    covered[inside, inside] = pixels[inside, inside]
    return covered


def _burn_in_markers(pixels: Pixels, level: float, generator: np.random.Generator) -> Pixels:
    """Draw a side marker, L or R, in an upper corner and up to three boxes of text in the other corners."""
    image = Image.fromarray(pixels)
    draw, height = ImageDraw.Draw(image), (0.04 + 0.01 * level) * min(pixels.shape)
    letter, corner = "LR"[generator.integers(2)], int(generator.integers(2))
    texts = [str(text) for text in generator.permutation(_TEXTS)]
    _draw_text(draw, image.size, corner, letter, height, box=False)
    others = [place for place in range(4) if place != corner]
    for text, place in list(zip(texts, others, strict=False))[: int(level) - 1]:
        _draw_text(draw, image.size, place, text, 0.5 * height, box=True)
    return np.asarray(image)


def _draw_text(
    draw: ImageDraw.ImageDraw, size: tuple[int, int], corner: int, text: str, height: float, box: bool
) -> None:
    """Draw white text of a height in pixels in a corner: 0 and 1 are the upper, 2 and 3 the lower corners."""
    font = ImageFont.load_default(height / 0.72)  # capitals have 0.72 of the font's size
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    margin = 0.03 * min(size)
    x = margin if corner % 2 == 0 else size[0] - margin - (right - left)
    y = margin if corner < 2 else size[1] - margin - (bottom - top)
    if box:
        pad = 0.25 * height
        draw.rectangle((x - pad, y - pad, x + right - left + pad, y + bottom - top + pad), fill=0)
    draw.text((x - left, y - top), text, fill=255, font=font)


def _squeeze(pixels: Pixels, factor: float, generator: np.random.Generator) -> Pixels:
    """Squeeze the image in one direction and fill the rest with black, as padding to another aspect ratio does."""
    axis = int(generator.integers(2))
    shape = [round(side * factor) if index == axis else side for index, side in enumerate(pixels.shape)]
    start = (pixels.shape[axis] - shape[axis]) // 2
    squeezed = np.zeros_like(pixels)
    part = slice(start, start + shape[axis])
    squeezed[(part, slice(None)) if axis == 0 else (slice(None), part)] = _resize(
        pixels, shape, Image.Resampling.BILINEAR
    )
    return squeezed


def _rotate(pixels: Pixels, degrees: float, generator: np.random.Generator) -> Pixels:
    angle = degrees if generator.integers(2) else -degrees
    return np.asarray(Image.fromarray(pixels).rotate(angle, Image.Resampling.BILINEAR, fillcolor=0))


CORRUPTIONS = {
    # Standard deviations of torchvision's Gaussian blur for the kernels of 3, 5, 7, 9 and 11 pixels.
    "gaussian_blur": Corruption("Gaussian blur", "pixels of 224", (0.8, 1.1, 1.4, 1.7, 2.0), _blur),
    "motion_blur": Corruption("motion blur", "fraction of height", (0.01, 0.02, 0.03, 0.04, 0.06), _blur_motion),
    "low_resolution": Corruption(
        "low resolution", "fraction of 224 pixels", (0.8, 0.7, 0.6, 0.5, 0.4), _lower_resolution
    ),
    "gaussian_noise": Corruption(
        "Gaussian noise", "standard deviation", (0.04, 0.05, 0.06, 0.07, 0.08), _add_gaussian_noise
    ),
    "shot_noise": Corruption("shot noise", "quanta at white", (300, 200, 150, 100, 80), _add_shot_noise),
    "jpeg": Corruption("JPEG compression", "quality", (50, 30, 15, 10, 7), _compress),
    "contrast_down": Corruption("lower contrast", "factor", (0.9, 0.8, 0.7, 0.6, 0.4), _scale_contrast),
    "contrast_up": Corruption("higher contrast", "factor", (1.1, 1.2, 1.3, 1.4, 1.6), _scale_contrast),
    "brightness_down": Corruption("darker", "factor", (0.9, 0.8, 0.7, 0.6, 0.5), _scale_brightness),
    "brightness_up": Corruption("brighter", "factor", (1.1, 1.2, 1.3, 1.4, 1.5), _scale_brightness),
    "gamma_dark": Corruption("darker gamma", "exponent", (1.1, 1.2, 1.3, 1.4, 1.6), _apply_gamma),
    "gamma_bright": Corruption("brighter gamma", "exponent", (0.9, 0.8, 0.7, 0.6, 0.4), _apply_gamma),
    "collimation": Corruption(
        "covered border", "fraction of short side", (0.03, 0.06, 0.09, 0.12, 0.15), _cover_border
    ),
    "markers": Corruption("markers and text", "size and number", (1, 2, 3, 4, 5), _burn_in_markers),
    "squeeze": Corruption("squeezed aspect", "factor", (0.9, 0.85, 0.8, 0.75, 0.7), _squeeze),
    "rotation": Corruption("rotation", "degrees", (4, 8, 12, 16, 20), _rotate),
}
