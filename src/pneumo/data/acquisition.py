"""Acquisition of strongly varied phantom images: projection, detector, exposure, foreign objects and collimation."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import gaussian_filter, map_coordinates

from pneumo.data.anatomy import SCALE, SHAPE, Chest, Plane

_OVERSAMPLING = 2  # ribs and vessels are thinner than a pixel of the small images


def project_varied(chest: Chest, side: int, random: np.random.Generator) -> Chest:
    """Resample a chest to `side` x `side` pixels with a random deformation, rotation, scale and position."""
    coordinates = _draw_deformation(side * _OVERSAMPLING, random)
    planes = (map_coordinates(plane, coordinates, order=1, mode="nearest") for plane in chest)
    blocks = (side, _OVERSAMPLING, side, _OVERSAMPLING)
    return Chest(*(np.asarray(plane.reshape(blocks).mean((1, 3)), np.float32) for plane in planes))


def expose_varied(attenuation: Plane, random: np.random.Generator) -> NDArray[np.uint8]:
    """Convert a square attenuation image to grey values with random contrast, objects, blur, noise and borders."""
    image = _draw_gradient(attenuation, random)
    image = _change_contrast(image, random)
    image = _add_objects(image, random)
    if random.random() < 0.5:
        image = gaussian_filter(image, random.uniform(0.2, 0.9))
    image = image + min(random.exponential(0.015), 0.06) * random.standard_normal(image.shape)
    if random.random() < 0.25:
        _add_borders(image, random)
    if random.random() < 0.15:
        _erase_patch(image, random)
    image = np.clip(image, 0, 1.2)
    return np.asarray(255 * (image - image.min()) / (np.ptp(image) + 1e-6), np.uint8)


def _draw_deformation(side: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Draw the row and column in body coordinates of each pixel, shape (2, side, side)."""
    y, x = np.meshgrid(*2 * [np.linspace(-1, 1, side)], indexing="ij")
    # Smooth stretches along one axis change the height of the lungs relative to the abdomen, and their width.
    for _ in range(2):
        y = y + 0.12 * np.sin(math.pi * random.uniform(0.4, 1) * y + random.uniform(0, 2 * math.pi))
        x = x + 0.06 * np.sin(math.pi * random.uniform(0.4, 1) * x + random.uniform(0, 2 * math.pi))
    x = x * (1 + random.normal(0, 0.12) * y)  # narrow or wide bases
    y, x = y + 0.035 * _draw_smooth(side, random), x + 0.03 * _draw_smooth(side, random)
    angle = random.normal(0, 0.07)
    c, s = math.cos(angle), math.sin(angle)
    y, x = c * y - s * x, s * y + c * x
    # The lungs are at about |x| < 0.78 and -0.75 < y < 0.6: they fill the image or half of it.
    y = random.uniform(0.72, 1.3) * y + random.normal(-0.02, 0.1)
    x = random.uniform(0.8, 1.32) * x + random.normal(0, 0.09)
    return np.stack([y * SCALE + (SHAPE[0] - 1) / 2, x * SCALE + (SHAPE[1] - 1) / 2])


def _draw_smooth(side: int, random: np.random.Generator) -> Plane:
    grid = random.standard_normal((4, 4), dtype=np.float32)
    return np.asarray(Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC), np.float32)


def _draw_gradient(attenuation: Plane, random: np.random.Generator) -> NDArray[np.float64]:
    """Apply a linear gradient and scale the image to 0..1."""
    axis = np.linspace(-1, 1, len(attenuation))
    image = attenuation * (1 + random.normal(0, 0.08) * axis + random.normal(0, 0.1) * axis[:, None])
    low, high = np.percentile(image, [random.uniform(0, 2), random.uniform(98, 100)])
    return np.asarray(np.clip((image - low) / (high - low + 1e-6), 0, 1))


def _change_contrast(image: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Apply increasing curves to grey values, and often local contrast normalization."""
    if random.random() < 0.5:  # absorption
        image = 1 - np.exp(-random.uniform(0.5, 3) * image)
        image = image / image.max()
    if random.random() < 0.8:
        knots = random.integers(4, 8)
        rises = random.dirichlet(np.full(knots, random.uniform(0.8, 4)))
        image = np.interp(image, np.linspace(0, 1, knots + 1), np.concatenate([[0], np.cumsum(rises)]))
    image = image ** random.lognormal(0, 0.35)
    if random.random() < 0.3:  # similar to adaptive histogram equalization, which some detectors apply
        image = image - random.uniform(0.3, 0.9) * gaussian_filter(image, random.uniform(4, 13))
        image = (image - image.min()) / (np.ptp(image) + 1e-6)
    return image


def _add_objects(image: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Add tubes, electrodes and letters, which are bright."""
    side = 3 * len(image)
    canvas = Image.new("L", (side, side))
    draw = ImageDraw.Draw(canvas)
    for _ in range(random.integers(0, 5) if random.random() < 0.5 else 0):
        _draw_tube(draw, side, random)
    for _ in range(random.integers(0, 5) if random.random() < 0.4 else 0):
        (x, y), radius = random.uniform(0, side, 2), random.uniform(2, 7)
        height = radius * random.uniform(0.6, 1.4)
        draw.ellipse([x - radius, y - height, x + radius, y + height], fill=int(random.integers(60, 255)))
    for _ in range(random.integers(0, 4)):
        x, y = random.uniform(0, side, 2)
        if random.random() < 0.7:  # markers are usually next to the body
            x = random.choice([random.uniform(0, 0.2), random.uniform(0.78, 0.96)]) * side
        text = "".join(random.choice(list("RLAPXTGV"), random.integers(1, 4)))
        draw.text((x, y), text, fill=int(random.integers(120, 255)), font_size=int(random.integers(8, 26)))
    blurred = canvas.filter(ImageFilter.GaussianBlur(random.uniform(0.3, 1.2))).reduce(3)
    objects = np.asarray(blurred, np.float64) / 255
    if random.random() < 0.7:
        return np.asarray(image * (1 - objects) + random.uniform(0.8, 1.2) * objects)
    return np.clip(image + 0.6 * objects, 0, 1.3)


def _draw_tube(draw: ImageDraw.ImageDraw, side: int, random: np.random.Generator) -> None:
    """Draw a curved line that starts anywhere."""
    steps = random.integers(6, 25)
    angles = random.uniform(0, 2 * math.pi) + random.normal(0, 0.35, steps).cumsum()
    points = random.uniform(0, side, 2) + 9 * np.stack([np.cos(angles), np.sin(angles)], 1).cumsum(0)
    draw.line(points.ravel().tolist(), fill=int(random.integers(30, 160)), width=int(random.integers(1, 3)))


def _add_borders(image: NDArray[np.float64], random: np.random.Generator) -> None:
    """Add collimation or letterbox bars to some sides, in place."""
    grey = random.choice([0, 0, 1, random.uniform()])
    for view in (image, image[::-1], image.T, image.T[::-1]):
        if random.random() < 0.5:
            view[: random.integers(1, 7)] = grey


def _erase_patch(image: NDArray[np.float64], random: np.random.Generator) -> None:
    """Replace a random rectangle by one grey value, in place, as a plate or a censored name does."""
    height, width = random.integers(3, 20, 2)
    row, column = random.integers(0, len(image) - height), random.integers(0, len(image) - width)
    image[row : row + height, column : column + width] = random.uniform()
