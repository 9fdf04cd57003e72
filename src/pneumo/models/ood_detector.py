"""OOD detection from the distance between an image's mean activations and those of training images."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pneumo.models.backbones import Backbone
from pneumo.models.feature_maps import Layout, find_layout, forward_hooks

_MAX_COMPONENTS = 64
_EPSILON = 1e-6  # keeps scores finite for constant channels
_Array = npt.NDArray[np.float64]


class MultiLevelBackbone(nn.Module):
    """A backbone that also returns the channel means of each level: the last feature map of each resolution.

    Early maps represent textures and edges, late maps the classes. OOD images differ from training images in at least
    one of them, while the final features, which only separate the classes, may have discarded the difference.
    """

    def __init__(self, backbone: Backbone, image_size: int) -> None:
        """Find the feature maps by a forward pass of two images.

        Args:
            backbone: Backbone in evaluation mode, which is not modified.
            image_size: Height and width of the images in pixels.
        """
        super().__init__()
        self.backbone = backbone
        images = torch.zeros(2, 1, image_size, image_size, dtype=torch.uint8, device=backbone.mean.device)
        with torch.inference_mode():
            self.layouts = _last_maps(backbone, images)
            self.channels = [mean.shape[1] for mean in self._run(images)[1]]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (N, 1, H, W), uint8, to features (N, features) and means (N, sum of channels)."""
        features, means = self._run(image)
        return features, torch.cat(means, dim=1)

    def _run(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        means: dict[str, Tensor] = {}

        def store_mean(name: str, output: Tensor) -> None:
            means[name] = self.layouts[name].mean(output)

        with forward_hooks(self.backbone.network, store_mean, self.layouts):
            features: Tensor = self.backbone(image)
        return features, [means[name] for name in self.layouts] or [features.float()]  # without maps, use the features


def _last_maps(backbone: Backbone, images: Tensor) -> dict[str, Layout]:
    """Return layouts by module path, fine to coarse, of the last feature map of each resolution."""
    calls: list[tuple[str, Layout, int]] = []

    def record(name: str, output: object) -> None:
        if isinstance(output, Tensor) and (layout := find_layout(output, len(images))):
            # All token maps have one resolution, so their number of channels, larger within blocks, distinguishes them.
            calls.append((name, layout, output.shape[2] if layout.kind == "tokens" else 0))

    with forward_hooks(backbone.network, record):
        backbone(images)
    times = Counter(name for name, *_ in calls)  # hooks would keep only the last call of a module
    last = {(layout.side, channels): (name, layout) for name, layout, channels in calls if times[name] == 1}
    return dict(last.values())


class OodDetector(NamedTuple):
    """A principal-component model of a network's mean activations on training images.

    Attributes:
        mean: Mean of the channel means from `MultiLevelBackbone`, (P,).
        scale: Scale factor of differences from the mean, (P,).
        components: Orthonormal principal components, (components, P).
    """

    mean: Tensor
    scale: Tensor
    components: Tensor

    def score(self, means: Tensor) -> Tensor:
        """Compute OOD scores, (N,), from channel means, (N, P); above 1 an image is out of distribution.

        The score is the squared residual of the principal component analysis, relative to the limit.
        """
        difference = (means - self.mean) * self.scale
        projection = difference @ self.components.T
        # For a good fit, the difference of the squared lengths would be mostly rounding error.
        return (difference - projection @ self.components).square().sum(1)


def fit_ood_detector(
    reference: _Array, in_distribution: Sequence[tuple[_Array, float]], channels: Sequence[int]
) -> OodDetector:
    """Fit the OOD detector.

    Sources: J. E. Jackson and G. S. Mudholkar, Control Procedures for Residuals Associated With Principal Component
    Analysis (1979), for the score; H. Wang et al., ViM: Out-of-Distribution with Virtual-logit Matching (2022), for its
    use on network features.

    Args:
        reference: Channel means from `MultiLevelBackbone` for training images, (N, P).
        in_distribution: Channel means of other in-distribution images, (M, P), as one or several sets, each with the
            fraction of images that may exceed the limit. The limit is the largest over the sets.
        channels: Number of channels of each level, with sum P; all levels have the same weight.
    """
    mean, deviation = reference.mean(0), reference.std(0)
    parts = np.split(deviation, np.cumsum(channels)[:-1])
    # Without the offset, channels that are almost constant in the reference would dominate.
    scale = np.concatenate([1 / ((part + 1e-3 * part.max() + _EPSILON) * np.sqrt(len(part))) for part in parts])
    spread = (reference - mean) * scale
    count = min(_MAX_COMPONENTS, max(len(reference) // 4, 1))
    components = np.linalg.svd(spread, full_matrices=False)[2][:count]
    fitted = OodDetector(*(torch.from_numpy(each) for each in (mean, scale, components)))
    limit = max(
        np.quantile(fitted.score(torch.from_numpy(means)).numpy(), 1 - allowed, method="higher")
        for means, allowed in in_distribution
    )
    scale /= np.sqrt(max(limit, _EPSILON))
    return OodDetector(*(torch.from_numpy(each).float() for each in (mean, scale, components)))
