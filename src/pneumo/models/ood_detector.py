"""The OOD detector: distance of an image's mean activations from those of training images."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pneumo.models.backbones import Backbone
from pneumo.models.feature_maps import Layout, find_layout, hooked

_COMPONENTS = 64
_LEAST = 1e-6  # what never moves must not give infinite scores
_Array = npt.NDArray[np.float64]


class LevelMeans(nn.Module):
    """A backbone that also gives the means of its channels, at the last map of each resolution.

    Early maps tell textures and edges, late ones what the labels ask for: what is unlike the training images shows in
    one of them, while the features alone, which serve to tell classes apart, may have dropped it.
    """

    def __init__(self, backbone: Backbone, image_size: int) -> None:
        """Find the maps by running two images.

        Args:
            backbone: In evaluation; it stays as it is.
            image_size: Height and width of the images in pixels.
        """
        super().__init__()
        self.backbone = backbone
        images = torch.zeros(2, 1, image_size, image_size, dtype=torch.uint8, device=backbone.mean.device)
        with torch.inference_mode():
            self.layouts = _last_of_each_kind(backbone, images)
            self.channels = [mean.shape[1] for mean in self._run(images)[1]]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (N, 1, H, W), uint8, to features (N, features) and means (N, sum of channels)."""
        features, means = self._run(image)
        return features, torch.cat(means, dim=1)

    def _run(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        means: dict[str, Tensor] = {}

        def keep(name: str, output: Tensor) -> None:
            means[name] = self.layouts[name].mean(output)

        with hooked(self.backbone.network, keep, self.layouts):
            features: Tensor = self.backbone(image)
        return features, [means[name] for name in self.layouts] or [features.float()]  # no maps: the features are all


def _last_of_each_kind(backbone: Backbone, images: Tensor) -> dict[str, Layout]:
    """Return, from fine to coarse, the modules whose outputs are the last maps of their resolution, by their paths."""
    calls: list[tuple[str, Layout, int]] = []

    def note(name: str, output: object) -> None:
        if isinstance(output, Tensor) and (layout := find_layout(output, len(images))):
            # Tokens have one resolution throughout, but more channels within their blocks.
            calls.append((name, layout, output.shape[2] if layout.kind == "tokens" else 0))

    with hooked(backbone.network, note):
        backbone(images)
    times = Counter(name for name, *_ in calls)  # of a module that is called again, only the last call would be kept
    last = {(layout.side, channels): (name, layout) for name, layout, channels in calls if times[name] == 1}
    return dict(last.values())


class OodDetector(NamedTuple):
    """A principal-component model of a network's mean activations on training images.

    Attributes:
        mean: Mean of the outputs of `LevelMeans`, (P,).
        scale: Factor of differences from the mean, (P,).
        components: Orthonormal directions, (components, P).
    """

    mean: Tensor
    scale: Tensor
    components: Tensor

    def score(self, means: Tensor) -> Tensor:
        """Compute OOD scores, (N,), from outputs of `LevelMeans`, (N, P); above 1 an image is out of distribution.

        The score is the squared residual of the principal component analysis, as a multiple of the limit.
        """
        difference = (means - self.mean) * self.scale
        inside = difference @ self.components.T
        # The difference of the squared lengths would be mostly rounding error for a good fit.
        return (difference - inside @ self.components).square().sum(1)


def fit_ood_detector(reference: _Array, usual: Sequence[tuple[_Array, float]], channels: Sequence[int]) -> OodDetector:
    """Fit the detector.

    Sources: J. E. Jackson and G. S. Mudholkar, Control Procedures for Residuals Associated With Principal Component
    Analysis (1979), for the score; H. Wang et al., ViM: Out-of-Distribution with Virtual-logit Matching (2022), who
    take it of a network's features.

    Args:
        reference: Outputs of `LevelMeans` for training images, (N, P).
        usual: One or several kinds of other in-distribution images, (M, P), each with the fraction of them that may
            exceed the limit.
        channels: Number of channels of each level, with sum P; all levels have the same weight.
    """
    mean, deviation = reference.mean(0), reference.std(0)
    parts = np.split(deviation, np.cumsum(channels)[:-1])
    # Otherwise a channel that is almost constant in the reference would dominate.
    scale = np.concatenate([1 / ((part + 1e-3 * part.max() + _LEAST) * np.sqrt(len(part))) for part in parts])
    spread = (reference - mean) * scale
    most = min(_COMPONENTS, max(len(reference) // 4, 1))
    components = np.linalg.svd(spread, full_matrices=False)[2][:most]
    fitted = OodDetector(*(torch.from_numpy(each) for each in (mean, scale, components)))
    limit = max(
        np.quantile(fitted.score(torch.from_numpy(means)).numpy(), 1 - allowed, method="higher")
        for means, allowed in usual
    )
    scale /= np.sqrt(max(limit, _LEAST))
    return OodDetector(*(torch.from_numpy(each).float() for each in (mean, scale, components)))
