"""Localisation metrics of saliency maps against masks."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Map = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


class Localisation(NamedTuple):
    """Localisation metrics of saliency maps.

    Attributes:
        pointing: Fraction of images whose map has its maximum inside the mask (pointing game, Zhang et al. 2016),
            without tolerance. A map of zeros has no maximum.
        energy: Mean fraction of a map that lies inside the mask (Wang et al. 2020, Score-CAM).
        area: Mean fraction of the image that the mask covers: what both are of maps that point anywhere.
        other_images: `pointing` of the same maxima and the masks of the other images: that of maps which show where
            findings lie in general.
    """

    pointing: float
    energy: float
    area: float
    other_images: float


def localise(maps: Sequence[Map], masks: Sequence[Mask]) -> Localisation:
    """Measure maps by masks: of each image one of either, of the same shape."""
    peaks = [_peak(found) for found in maps]
    hits = np.array([[_hits(peak, mask) for mask in masks] for peak in peaks])
    count, own = len(hits), float(hits.trace())
    return Localisation(
        pointing=own / count,
        energy=float(np.mean([_inside(found, mask) for found, mask in zip(maps, masks, strict=True)])),
        area=float(np.mean([mask.mean() for mask in masks])),
        other_images=float((hits.sum() - own) / (count * (count - 1))) if count > 1 else 0.0,
    )


def _inside(found: Map, mask: Mask) -> float:
    total = found.sum(dtype=np.float64)
    return float(found[mask].sum(dtype=np.float64) / total) if total > 0 else 0.0


def _peak(found: Map) -> tuple[float, float] | None:
    """Return the middle of the map's largest pixel, as fractions of its height and width."""
    if not found.any():
        return None
    row, column = np.unravel_index(int(found.argmax()), found.shape)
    return (float(row) + 0.5) / found.shape[0], (float(column) + 0.5) / found.shape[1]


def _hits(peak: tuple[float, float] | None, mask: Mask) -> bool:
    return peak is not None and bool(mask[int(peak[0] * mask.shape[0]), int(peak[1] * mask.shape[1])])
