"""Masks of the opacities in phantoms."""

import numpy as np
from numpy.typing import NDArray

from pneumo.data import phantoms

VISIBLE = 20  # grey values: what stands out of the grain, whose standard deviation is mostly 1 to 5


def draw_opacities(path: str, *, seed: int, train: int, val: int, test: int) -> NDArray[np.bool_]:
    """Mark where opacities add more than `VISIBLE` grey values to an image that `write_phantoms` draws, (H, W)."""
    (film,) = (film for film in phantoms._plan({"train": train, "val": val, "test": test}) if film.path == path)
    ill, well = (phantoms._draw(each, seed).astype(np.int64) for each in (film, film._replace(finding="none")))
    return np.asarray(ill - well > VISIBLE)
