"""Feature maps: memory layouts of module outputs, and forward hooks."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_MAX_PREFIX = 8  # class, distillation and register tokens, which have no spatial position
_SPATIAL_DIMS: dict[str, tuple[int, ...]] = {"channels first": (2, 3), "channels last": (1, 2), "tokens": (1,)}


@dataclass(frozen=True)
class Layout:
    """The layout of spatial positions in a module's output for N images.

    Attributes:
        kind: channels first (N, C, side, side), channels last (N, side, side, C), or tokens (N, prefix + side^2, C).
        side: Height and width of the feature map.
        prefix: Number of tokens without a spatial position, which come first.
    """

    kind: str
    side: int
    prefix: int = 0

    def mean(self, output: Tensor) -> Tensor:
        """Compute the mean of each channel over the spatial positions, (N, C) float32."""
        return output[:, self.prefix :].float().mean(_SPATIAL_DIMS[self.kind])

    def to_map(self, output: Tensor) -> Tensor:
        """Return an output as a feature map, (N, C, side, side), without prefix tokens."""
        if self.kind == "channels first":
            return output
        if self.kind == "channels last":
            return output.permute(0, 3, 1, 2)
        tokens = output[:, self.prefix :].transpose(1, 2)
        return tokens.reshape(*tokens.shape[:2], self.side, self.side)

    def from_map(self, feature_map: Tensor, output: Tensor) -> Tensor:
        """Return an output in this layout with its feature map replaced by `feature_map`, (N, C, side, side)."""
        if self.kind == "channels first":
            return feature_map
        if self.kind == "channels last":
            return feature_map.permute(0, 2, 3, 1)
        return torch.cat((output[:, : self.prefix], feature_map.flatten(2).transpose(1, 2)), 1)


def find_layout(output: Tensor, images: int) -> Layout | None:
    """Return the layout of a module's output for a batch of `images`; None unless it is a square feature map.

    Outputs that fold windows of images into the first dimension have no layout.
    """
    shape = tuple(output.shape)
    if shape[0] != images:
        return None
    if len(shape) == 4 and shape[2] == shape[3] > 1:
        return Layout("channels first", shape[2])
    if len(shape) == 4 and shape[1] == shape[2] > 1:
        return Layout("channels last", shape[1])
    if len(shape) == 3 and (side := math.isqrt(shape[1])) > 1 and shape[1] - side**2 <= _MAX_PREFIX:
        return Layout("tokens", side, shape[1] - side**2)
    return None


@contextmanager
def forward_hooks(
    network: nn.Module, receive: Callable[[str, Any], Tensor | None], names: Iterable[str] | None = None
) -> Iterator[None]:
    """Pass outputs of modules to a function, which may return replacements.

    Args:
        network: Network with the modules.
        receive: Function of a module's path and its output.
        names: Paths of the modules; None: all submodules.
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
