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
        energy: Mean fraction of a map's sum that is inside the mask (Wang et al. 2020, Score-CAM).
        area: Mean fraction of the image that the mask covers: the expected value of both metrics for random maps.
        other_images: `pointing` with the masks of the other images: its value for maps that show where findings are in
            general.
    """

    pointing: float
    energy: float
    area: float
    other_images: float


def localise(maps: Sequence[Map], masks: Sequence[Mask]) -> Localisation:
    """Compute the metrics from one map and one mask per image, of the same shape."""
    peaks = [_peak(saliency) for saliency in maps]
    is_hit = np.array([[_hits(peak, mask) for mask in masks] for peak in peaks])
    count, own = len(is_hit), float(is_hit.trace())
    return Localisation(
        pointing=own / count,
        energy=float(np.mean([_inside(saliency, mask) for saliency, mask in zip(maps, masks, strict=True)])),
        area=float(np.mean([mask.mean() for mask in masks])),
        other_images=float((is_hit.sum() - own) / (count * (count - 1))) if count > 1 else 0.0,
    )


def _inside(saliency: Map, mask: Mask) -> float:
    total = saliency.sum(dtype=np.float64)
    return float(saliency[mask].sum(dtype=np.float64) / total) if total > 0 else 0.0


def _peak(saliency: Map) -> tuple[float, float] | None:
    """Return the centre of the map's largest pixel, as fractions of its height and width."""
    if not saliency.any():
        return None
    row, column = np.unravel_index(int(saliency.argmax()), saliency.shape)
    return (float(row) + 0.5) / saliency.shape[0], (float(column) + 0.5) / saliency.shape[1]


def _hits(peak: tuple[float, float] | None, mask: Mask) -> bool:
    return peak is not None and bool(mask[int(peak[0] * mask.shape[0]), int(peak[1] * mask.shape[1])])
