"""What a network sees on its way: the mean of each channel at each resolution."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pneumo.models.backbone import Backbone

_Hook = Callable[[nn.Module, Any, Any], None]


class LevelMeans(nn.Module):
    """A backbone that also gives the means of its channels, at the last map of each resolution.

    Early maps tell textures and edges, late ones what the labels ask for: what is unlike the training images shows in
    one of them, while the features alone, which serve to tell classes apart, may have dropped it.
    """

    def __init__(self, backbone: Backbone, image_size: int) -> None:
        """Find the maps by running one image.

        Args:
            backbone: In evaluation; it stays as it is.
            image_size: Height and width of the images in pixels.
        """
        super().__init__()
        self.backbone = backbone
        image = torch.zeros(1, 1, image_size, image_size, dtype=torch.uint8, device=backbone.mean.device)
        with torch.inference_mode():
            self.layers = _last_of_each_kind(backbone, image)
            self.channels = [mean.shape[1] for mean in self._run(image)[1]]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (N, 1, H, W), uint8, to features (N, features) and means (N, sum of channels)."""
        features, means = self._run(image)
        return features, torch.cat(means, dim=1)

    def _run(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        means: dict[str, Tensor] = {}

        def keep(name: str) -> _Hook:
            def hook(module: nn.Module, arguments: Any, output: Any) -> None:  # noqa: ANN401 (whatever it takes)
                means[name] = _mean(output)

            return hook

        with _hooks(self.backbone.network, self.layers, keep):
            features: Tensor = self.backbone(image)
        return features, [means[name] for name in self.layers] or [features.float()]  # no maps: the features are all


@contextmanager
def _hooks(network: nn.Module, names: Iterable[str], make: Callable[[str], _Hook]) -> Iterator[None]:
    """Listen to what modules give, by their paths."""
    handles = [network.get_submodule(name).register_forward_hook(make(name)) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _mean(output: Tensor) -> Tensor:
    """Average maps (N, C, H, W) over places, or tokens (N, T, C) over tokens, to (N, C)."""
    return output.float().mean((2, 3) if output.ndim == 4 else 1)


def _last_of_each_kind(backbone: Backbone, image: Tensor) -> list[str]:
    """Give, from fine to coarse, the paths of the modules whose outputs are the last maps of their resolution."""
    calls: list[tuple[str, tuple[int, ...]]] = []

    def listen(name: str) -> _Hook:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:  # noqa: ANN401 (whatever it gives)
            if isinstance(output, Tensor) and output.ndim in (3, 4) and (kind := _kind(output))[-1] > 1:
                calls.append((name, kind))

        return hook

    with _hooks(backbone.network, [name for name, _ in backbone.network.named_modules() if name], listen):
        backbone(image)
    times = Counter(name for name, _ in calls)  # of a module that is called again, only the last call would be kept
    return list({kind: name for name, kind in calls if times[name] == 1}.values())


def _kind(output: Tensor) -> tuple[int, ...]:
    return tuple(output.shape[2:]) if output.ndim == 4 else (output.shape[1],)
