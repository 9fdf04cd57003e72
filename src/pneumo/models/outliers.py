"""Images unlike those that a network was trained on: how badly what it sees in them fits what it saw in those."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_COMPONENTS = 64
_LEAST = 1e-6  # what never moves must not give infinite scores
_Array = npt.NDArray[np.float64]


class Outliers(NamedTuple):
    """A model of what a network sees in its training images: most of it lies in a space of few dimensions.

    Attributes:
        mean: Of what `LevelMeans` gives, (P,).
        scale: What differences to it are multiplied with, (P,).
        components: Orthonormal directions, (components, P).
    """

    mean: Tensor
    scale: Tensor
    components: Tensor

    def score(self, means: Tensor) -> Tensor:
        """Give how unlike images are, (N,), by what `LevelMeans` gives, (N, P): more than 1 is too much.

        It is the squared length of what the components leave over (the residual of a principal component analysis), as
        multiple of the threshold.
        """
        difference = (means - self.mean) * self.scale
        inside = difference @ self.components.T
        # Not the difference of the squared lengths, in which rounding would be all that is left of a good fit.
        return (difference - inside @ self.components).square().sum(1)


def fit_outliers(reference: _Array, usual: Sequence[tuple[_Array, float]], channels: Sequence[int]) -> Outliers:
    """Fit the model.

    Sources: J. E. Jackson and G. S. Mudholkar, Control Procedures for Residuals Associated With Principal Component
    Analysis (1979), for the score; H. Wang et al., ViM: Out-of-Distribution with Virtual-logit Matching (2022), who
    take it of a network's features.

    Args:
        reference: Of training images, (N, P).
        usual: Of other images that are to be taken for usual, (M, P), one kind or several, each with the share of them
            that may be called unlike.
        channels: Of each level, whose sum is P; each level counts the same.
    """
    mean, deviation = reference.mean(0), reference.std(0)
    parts = np.split(deviation, np.cumsum(channels)[:-1])
    # A channel that hardly moves in the reference would else decide all.
    scale = np.concatenate([1 / ((part + 1e-3 * part.max() + _LEAST) * np.sqrt(len(part))) for part in parts])
    spread = (reference - mean) * scale
    most = min(_COMPONENTS, max(len(reference) // 4, 1))
    components = np.linalg.svd(spread, full_matrices=False)[2][:most]
    fitted = Outliers(*(torch.from_numpy(each) for each in (mean, scale, components)))
    limit = max(
        np.quantile(fitted.score(torch.from_numpy(means)).numpy(), 1 - allowed, method="higher")
        for means, allowed in usual
    )
    scale /= np.sqrt(max(limit, _LEAST))
    return Outliers(*(torch.from_numpy(each).float() for each in (mean, scale, components)))
