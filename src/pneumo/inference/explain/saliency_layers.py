"""Choice of the layer for saliency maps."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from pneumo.models.feature_maps import Layout, find_layout, forward_hooks


@dataclass(frozen=True)
class Layer:
    """A layer for saliency maps: a module whose output is a spatial feature map."""

    name: str  # module path in the network
    layout: Layout  # of the output
    first: float  # centre of the receptive field of the first row or column, in pixels
    last: float  # centre of the receptive field of the last row or column, in pixels


@dataclass(frozen=True)
class _Output:
    """A module's output that may be a spatial feature map."""

    name: str
    tensor: Tensor
    layout: Layout
    consumer: Node  # the autograd node through which later modules use the output


def find_layer(network: nn.Module, image_size: int) -> Layer | None:
    """Find the layer for saliency maps by running a frozen network once on two images of noise.

    The network's output must depend on several positions of the layer's feature map, and on the image only through
    this map. Of such layers, the last one before the final mixing of neighbouring positions is returned. Later layers
    do not localise: in a fine-tuned EfficientNet-Lite0, their receptive fields cover both lungs, and evidence gathers
    in the middle (docs/EXPLANATIONS.md).
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 3, image_size, image_size, generator=generator)
    image = noise.to(next(network.parameters())).requires_grad_()
    outputs, features = _run(network, image)
    result = _random_sum(features, generator)
    gradients = torch.autograd.grad(result, [each.tensor for each in outputs], retain_graph=True, allow_unused=True)
    last: _Output | None = None
    for output, gradient in zip(reversed(outputs), reversed(gradients), strict=True):
        if not _covers_positions(output.layout, gradient) or _is_bypassed(output, result, image):
            continue
        last = last or output
        middle = last.layout.to_map(last.tensor)[:, :, last.layout.side // 2, last.layout.side // 2]
        (gradient,) = torch.autograd.grad(_random_sum(middle, generator), output.tensor, retain_graph=True)
        if _covers_positions(output.layout, gradient):
            return _locate(output, image, generator)
    return None if last is None else _locate(last, image, generator)


def _run(network: nn.Module, image: Tensor) -> tuple[list[_Output], Tensor]:
    """Run a network; return outputs that may be spatial feature maps, in order of execution, and the features."""
    calls: dict[str, list[_Output]] = {}

    def record(name: str, output: object) -> Tensor | None:
        if not (isinstance(output, Tensor) and output.requires_grad and (layout := find_layout(output, len(image)))):
            return None
        copied: Tensor = output.clone()  # later modules may modify it in place
        assert copied.grad_fn is not None
        calls.setdefault(name, []).append(_Output(name, output, layout, copied.grad_fn))
        return copied

    with forward_hooks(network, record):
        features: Tensor = network(image)
    return [outputs[0] for outputs in calls.values() if len(outputs) == 1], features


def _random_sum(values: Tensor, generator: torch.Generator) -> Tensor:
    """Sum all values with random weights, so that their gradients do not cancel out."""
    return (values * torch.randn(values.shape, generator=generator).to(values)).sum()


def _covers_positions(layout: Layout, gradient: Tensor | None) -> bool:
    return gradient is not None and int(layout.to_map(gradient).abs().sum((0, 1)).count_nonzero()) > 1


def _is_bypassed(output: _Output, result: Tensor, image: Tensor) -> bool:
    """Return whether the result also depends on the image through paths that bypass an output.

    The search stops at the consumer, not at the output: an `nn.Identity` returns its input, which others may use too.
    """
    visited, pending = {output.consumer}, [result.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        if getattr(node, "variable", None) is image:
            return True
        pending += [following for following, _ in node.next_functions]
    return False


def _locate(output: _Output, image: Tensor, generator: torch.Generator) -> Layer:
    """Compute the centres of an output's receptive fields.

    Without padding, the centres do not reach the image's border. If even the field in the middle of the map is cut
    off by the border, positions are assumed to cover the image evenly.
    """
    size, side = image.shape[-1], output.layout.side

    def receptive_field(index: int) -> tuple[int, int]:
        result = _random_sum(output.layout.to_map(output.tensor)[:, :, index, index], generator)
        (gradient,) = torch.autograd.grad(result, image, retain_graph=True)
        columns = gradient.abs().sum((0, 1, 2)).nonzero()
        return int(columns.min()), int(columns.max())

    low, high = receptive_field(side // 2)
    first, last = (size / side - 1) / 2, size - (size / side + 1) / 2
    if low > 0 and high < size - 1:
        first, last = receptive_field(0)[1] - (high - low) / 2, receptive_field(side - 1)[0] + (high - low) / 2
    return Layer(output.name, output.layout, first, last)
