"""Masks of the opacities in phantoms."""

import numpy as np
from numpy.typing import NDArray

from pneumo.data import phantoms

MIN_CONTRAST = 20  # grey values that an opacity adds; the noise has a standard deviation of 1 to 5 in most images


def draw_opacities(path: str, *, seed: int, train: int, val: int, test: int) -> NDArray[np.bool_]:
    """Return the mask (H, W) of the opacities in an image that `write_phantoms` draws."""
    (phantom,) = (
        phantom for phantom in phantoms._plan({"train": train, "val": val, "test": test}) if phantom.path == path
    )
    images = (phantoms._draw(each, seed).astype(np.int64) for each in (phantom, phantom._replace(finding="none")))
    with_opacities, without = images
    return np.asarray(with_opacities - without > MIN_CONTRAST)
