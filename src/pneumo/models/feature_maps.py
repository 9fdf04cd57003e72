"""Feature maps: how places lie in the outputs of a network's modules, and hooks that receive these outputs."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_PREFIX = 8  # class, distillation and register tokens, which belong to no place: at most so many
_PLACES: dict[str, tuple[int, ...]] = {"channels first": (2, 3), "channels last": (1, 2), "tokens": (1,)}


@dataclass(frozen=True)
class Layout:
    """How places lie in a tensor of N images.

    Attributes:
        kind: channels first (N, C, side, side), channels last (N, side, side, C), or tokens (N, prefix + side^2, C).
        side: Places a side.
        prefix: Tokens before those of places.
    """

    kind: str
    side: int
    prefix: int = 0

    def mean(self, output: Tensor) -> Tensor:
        """Compute the mean of each channel over the places, (N, C) float32."""
        return output[:, self.prefix :].float().mean(_PLACES[self.kind])

    def to_map(self, output: Tensor) -> Tensor:
        """Return the places as (N, C, side, side)."""
        if self.kind == "channels first":
            return output
        if self.kind == "channels last":
            return output.permute(0, 3, 1, 2)
        tokens = output[:, self.prefix :].transpose(1, 2)
        return tokens.reshape(*tokens.shape[:2], self.side, self.side)

    def from_map(self, places: Tensor, output: Tensor) -> Tensor:
        """Return an output with these places."""
        if self.kind == "channels first":
            return places
        if self.kind == "channels last":
            return places.permute(0, 2, 3, 1)
        return torch.cat((output[:, : self.prefix], places.flatten(2).transpose(1, 2)), 1)


def find_layout(output: Tensor, images: int) -> Layout | None:
    """Find how places lie in a module's output for so many images, if it has several: squares, as images are.

    What folds windows of images into the first dimension has no such layout.
    """
    shape = tuple(output.shape)
    if shape[0] != images:
        return None
    if len(shape) == 4 and shape[2] == shape[3] > 1:
        return Layout("channels first", shape[2])
    if len(shape) == 4 and shape[1] == shape[2] > 1:
        return Layout("channels last", shape[1])
    if len(shape) == 3 and (side := math.isqrt(shape[1])) > 1 and shape[1] - side**2 <= _PREFIX:
        return Layout("tokens", side, shape[1] - side**2)
    return None


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
