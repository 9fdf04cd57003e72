"""What a network sees on its way: the mean of each channel at each resolution."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pneumo.models.backbone import Backbone
from pneumo.models.layouts import Layout, find_layout


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


@contextmanager
def hooked(
    network: nn.Module, receive: Callable[[str, Any], Tensor | None], names: Iterable[str] | None = None
) -> Iterator[None]:
    """Pass outputs of modules to a function, which may return others to take their place.

    Args:
        network: That has the modules.
        receive: Called with a module's path and its output.
        names: Paths of the modules; None: all within the network.
    """
    if names is None:
        names = [name for name, _ in network.named_modules() if name]
    handles = [
        network.get_submodule(name).register_forward_hook(
            lambda module, arguments, output, name=name: receive(name, output)
        )
        for name in names
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


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
