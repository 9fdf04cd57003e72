"""Selection of the layer whose output a saliency map shows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from pneumo.models.ood_detector import Layout, find_layout, hooked


@dataclass(frozen=True)
class Layer:
    """A module whose output is a map of places through which all of the answer goes.

    Attributes:
        name: Its dotted path in the network.
        layout: Of its output.
        first: Middle of what the first row, or column, of places sees of the image, in pixels.
        last: The same of the last one.
    """

    name: str
    layout: Layout
    first: float
    last: float


@dataclass(frozen=True)
class _Output:
    """An output that could be a map of places, and the step of the computation by which what follows takes it."""

    name: str
    tensor: Tensor
    layout: Layout
    taken: Node

    @property
    def places(self) -> Tensor:
        return self.layout.to_map(self.tensor)


def find_layer(network: nn.Module, image_size: int) -> Layer | None:
    """Find the layer to look at, by running a network once on two images of noise.

    All of the answer goes through its output, the answer depends on several of its places, and what follows mixes
    neighbouring places for the last time. Behind that, evidence no longer lies where it was seen: in a fine-tuned
    EfficientNet-Lite0 it gathers amid the film, where places see both lungs (docs/EXPLANATIONS.md).

    Args:
        network: Maps (N, 3, H, W) to (N, features); frozen, in evaluation mode.
        image_size: Height and width of the images in pixels.

    Returns:
        The layer, or None if there is none.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 3, image_size, image_size, generator=generator)
    image = noise.to(next(network.parameters())).requires_grad_()
    outputs, features = _run(network, image)
    answer = _mix(features, generator)
    gradients = torch.autograd.grad(answer, [each.tensor for each in outputs], retain_graph=True, allow_unused=True)
    last: _Output | None = None
    for output, gradient in zip(reversed(outputs), reversed(gradients), strict=True):
        if not _has_places(output.layout, gradient) or _leads_around(answer, output, image):
            continue
        last = last or output
        middle = last.places[:, :, last.layout.side // 2, last.layout.side // 2]
        (seen,) = torch.autograd.grad(_mix(middle, generator), output.tensor, retain_graph=True)
        if _has_places(output.layout, seen):
            return _locate(output, image, generator)
    return None if last is None else _locate(last, image, generator)


def _run(network: nn.Module, image: Tensor) -> tuple[list[_Output], Tensor]:
    """Run a network and return, in their order, all outputs that could be maps of places, and its features."""
    calls: dict[str, list[_Output]] = {}

    def keep(name: str, output: object) -> Tensor | None:
        if not isinstance(output, Tensor) or not output.requires_grad:
            return None
        if (layout := find_layout(output, len(image))) is None:
            return None
        taken: Tensor = output.clone()  # what follows may change it in place
        assert taken.grad_fn is not None
        calls.setdefault(name, []).append(_Output(name, output, layout, taken.grad_fn))
        return taken

    with hooked(network, keep):
        features: Tensor = network(image)
    return [call for called in calls.values() for call in called if len(called) == 1], features


def _mix(values: Tensor, generator: torch.Generator) -> Tensor:
    """Sum all values, with weights by which none cancels another."""
    return (values * torch.randn(values.shape, generator=generator).to(values)).sum()


def _has_places(layout: Layout, gradient: Tensor | None) -> bool:
    return gradient is not None and int(layout.to_map(gradient).abs().sum((0, 1)).count_nonzero()) > 1


def _leads_around(answer: Tensor, output: _Output, image: Tensor) -> bool:
    """Return whether the answer also depends on the image by ways that do not go through an output.

    A shortcut's identity returns its input, which other layers take too: so it counts what follows the module.
    """
    seen, waiting = {output.taken}, [answer.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if getattr(node, "variable", None) is image:
            return True
        waiting += [following for following, _ in node.next_functions]
    return False


def _locate(output: _Output, image: Tensor, generator: torch.Generator) -> Layer:
    """Find which pixels the places of an output look at.

    Convolutions without padding leave a margin that is the middle of no place's view. A place amid the image sees more
    of it than one at its border; where even that one's view is cut off, places are taken to cover the image evenly.
    """
    size, side = image.shape[-1], output.layout.side

    def view(place: int) -> tuple[int, int]:
        answer = _mix(output.places[:, :, place, place], generator)
        (gradient,) = torch.autograd.grad(answer, image, retain_graph=True)
        columns = gradient.abs().sum((0, 1, 2)).nonzero()
        return int(columns.min()), int(columns.max())

    low, high = view(side // 2)
    first, last = (size / side - 1) / 2, size - (size / side + 1) / 2
    if low > 0 and high < size - 1:
        first, last = view(0)[1] - (high - low) / 2, view(side - 1)[0] + (high - low) / 2
    return Layer(output.name, output.layout, first, last)
