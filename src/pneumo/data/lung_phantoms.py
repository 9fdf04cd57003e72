"""Small phantom images with masks of the lungs, which train the lung locator."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import label
from scipy.spatial import ConvexHull

from pneumo.data.acquisition import expose_varied, project_varied
from pneumo.data.anatomy import Finding
from pneumo.data.chest_variation import draw_varied_chest
from pneumo.data.phantoms import draw_radiograph_with_lungs

LUNG_PHANTOMS_VERSION = 1  # increase it when other images are drawn; part of the cache key of trained locators
SIDE = 64  # height and width in pixels
_PLAIN_EVERY = 4  # every fourth phantom is one of `pneumo.data.phantoms`
_FINDINGS: tuple[Finding, ...] = ("none", "bacterial", "viral")
_MIN_AIR, _MIN_LUNGS, _MIN_PART = 0.45, 0.1, 0.1
Mask = NDArray[np.bool_]


class LungPhantom(NamedTuple):
    """Image of a phantom and its masks, each (64, 64)."""

    image: NDArray[np.uint8]
    lungs: Mask
    hull: Mask  # convex hull of both lungs


def draw_lung_phantom(seed: int, number: int) -> LungPhantom:
    """Draw a phantom; equal arguments give equal images, in any order. Every fourth phantom is not varied."""
    random = np.random.default_rng([seed, number, 2])
    if number % _PLAIN_EVERY == _PLAIN_EVERY - 1:
        return draw_plain_phantom(random, _FINDINGS[number // _PLAIN_EVERY % len(_FINDINGS)])
    return draw_varied_phantom(random)


def draw_varied_phantom(random: np.random.Generator) -> LungPhantom:
    """Draw a strongly varied phantom, whose lungs fill at least a tenth of the image."""
    while True:
        projection = project_varied(draw_varied_chest(random), SIDE, random)
        lungs = _remove_specks(projection.air > _MIN_AIR)
        if lungs.mean() > _MIN_LUNGS:
            return LungPhantom(expose_varied(projection.attenuation, random), lungs, convex_hull(lungs))


def draw_plain_phantom(random: np.random.Generator, finding: Finding) -> LungPhantom:
    """Draw a phantom of the synthetic data set, resized to a square."""
    patient, view = random.spawn(2)
    planes = draw_radiograph_with_lungs(patient, view, finding)
    image, air = (np.asarray(Image.fromarray(plane).resize((SIDE, SIDE), Image.Resampling.BOX)) for plane in planes)
    lungs = _remove_specks(air > _MIN_AIR)
    return LungPhantom(image, lungs, convex_hull(lungs))


def convex_hull(mask: Mask) -> Mask:
    """Return the convex hull of the pixels of a mask, (H, W), as a mask that contains it."""
    points = np.argwhere(mask)
    if np.linalg.matrix_rank(points - points[:1]) < 2:  # empty, or on one line
        return mask
    corners = points[ConvexHull(points).vertices, ::-1]
    image = Image.new("1", mask.shape[::-1])
    ImageDraw.Draw(image).polygon(corners.ravel().tolist(), fill=1, outline=1)
    return np.asarray(image) | mask


def _remove_specks(mask: Mask) -> Mask:
    """Remove connected parts smaller than a tenth of the largest, such as air in the neck."""
    parts, _ = label(mask)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0  # background
    return np.asarray((sizes > _MIN_PART * sizes.max())[parts])
