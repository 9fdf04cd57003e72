"""Saliency maps: HiResCAM, Grad-CAM and occlusion, and the choice of the layer for the first two."""

import copy
import math
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from captum.attr import LayerGradCam, LayerGradientXActivation, Occlusion
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.functional import grid_sample, pad
from torchvision.transforms.functional import gaussian_blur

from pneumo.common.input_format import InputFormat
from pneumo.errors import ConfigError
from pneumo.models.backbones import Backbone
from pneumo.models.feature_maps import Layout, find_layout, forward_hooks
from pneumo.models.logits import log_odds

# The first is the default. Sources: Draelos and Carin 2020 (gradient times activation at each position), Selvaraju et
# al. 2017 (gradients averaged over all positions), Zeiler and Fergus 2014 (occluded squares: slow, but needs no layer).
METHODS = ("hirescam", "gradcam", "occlusion")
_SMOOTHING = 16  # the image's side, divided by the standard deviation of the blur
_M = TypeVar("_M", bound=nn.Module)


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


class ExplainableClassifier(Protocol):
    """A classifier such as `Classifier`; scaled saliency maps do not depend on its temperature."""

    backbone: Backbone
    head: nn.Linear
    classes: list[str]
    input_format: InputFormat
    flip_test: bool


class SaliencyMapper:
    """Computes saliency maps of images for a class.

    The maps explain the log odds of the class, with `flip_test` those of the mean logits of an image and its mirror
    image. For two classes, the log odds are the difference of the logits: evidence for both classes cancels out.
    Hooks, modes and gradients belong to a copy of the network that shares its weights. Build a new mapper after moving
    the classifier to another device. Mappers are not thread-safe.
    """

    def __init__(self, classifier: ExplainableClassifier, method: str = METHODS[0]) -> None:
        """Build a mapper; every method except occlusion needs a layer found by `find_layer`."""
        if method not in METHODS:
            raise ConfigError(f"method={method} is unknown: it must be one of {', '.join(METHODS)}.")
        self.method, self.flip_test, self.size = method, classifier.flip_test, classifier.input_format.size
        self.classes = list(classifier.classes)
        self.backbone, self.head = _share_weights(classifier.backbone), _share_weights(classifier.head)
        self.feature_map = nn.Identity()  # the layer's output passes through this module, which captum can hook
        self.layer = None if method == "occlusion" else self._find_layer()

    def __call__(self, images: Tensor, targets: Tensor | None = None) -> Tensor:
        """Compute saliency maps (N, size, size) float32 of images (N, 1, size, size) uint8, on the same device.

        Each map is scaled to a maximum of 1; without evidence for the class, it is 0 everywhere. `targets` are the
        explained classes, (N,); None: the positive class of two, otherwise the predicted class.
        """
        with torch.inference_mode(False), torch.set_grad_enabled(self.layer is not None):
            pixels = images.to(self.backbone.mean.device, self.backbone.mean.dtype)
            pixels = (pixels / 255 - self.backbone.mean) / self.backbone.std
            if targets is None and len(self.classes) == 2:
                targets = torch.ones(len(pixels), dtype=torch.long)
            elif targets is None:
                with torch.no_grad():
                    targets = self._log_odds(pixels).argmax(1)
            attribution = self._attribute(pixels, targets.to(pixels.device)).float()
            smooth = _smooth(attribution, self.size / _SMOOTHING).relu()
            maps: Tensor = smooth / smooth.amax((1, 2), keepdim=True).clamp_min(torch.finfo(smooth.dtype).tiny)
        return maps.to(images.device)

    def _find_layer(self) -> Layer:
        network = self.backbone.network
        with torch.inference_mode(False), torch.enable_grad():
            layer = find_layer(network, self.size)
        if layer is None:
            raise ConfigError(
                f"method={self.method} requires a layer with a spatial feature map on which the whole output depends, "
                f"but {type(network).__name__} has none at {self.size} pixels. Use method=occlusion, which requires no "
                "layer."
            )

        def expose(module: nn.Module, arguments: object, output: Tensor) -> Tensor:
            return layer.layout.from_map(self.feature_map(layer.layout.to_map(output)), output)

        network.get_submodule(layer.name).register_forward_hook(expose)
        return layer

    def _log_odds(self, pixels: Tensor) -> Tensor:
        views = torch.cat((pixels, pixels.flip(3))) if self.flip_test else pixels
        logits: Tensor = self.head(self.backbone.network(views))
        return log_odds(torch.stack(torch.split(logits, len(pixels))).mean(0))

    def _attribute(self, pixels: Tensor, targets: Tensor) -> Tensor:
        """Compute each pixel's contribution to the log odds, (N, size, size)."""
        if self.layer is None:
            return self._occlude(pixels, targets)
        kind = LayerGradCam if self.method == "gradcam" else LayerGradientXActivation
        attribution: Tensor = kind(self._log_odds, self.feature_map).attribute(pixels, target=targets).detach().sum(1)
        attribution = _upsample(attribution, self.layer.first, self.layer.last, self.size)
        if self.flip_test:
            original, mirrored = torch.split(attribution, len(pixels))
            attribution = original + mirrored.flip(2)
        return attribution

    def _occlude(self, pixels: Tensor, targets: Tensor) -> Tensor:
        """Occlude squares with the blurred image: a constant grey would look like air or like an opacity."""
        side, step = max(1, self.size // 5), max(1, self.size // 10)
        blurred = gaussian_blur(pixels, 2 * side + 1, 0.75 * side)
        squares = {"sliding_window_shapes": (3, side, side), "strides": (3, step, step)}
        attribution: Tensor = Occlusion(self._log_odds).attribute(pixels, target=targets, baselines=blurred, **squares)
        return attribution.sum(1)


def _share_weights(module: _M) -> _M:
    """Return a frozen copy of a module, in evaluation mode, that uses the same memory for its weights."""
    weights = {id(weight): nn.Parameter(weight.detach(), False) for weight in module.parameters()}
    shared: _M = copy.deepcopy(module, {**weights, **{id(buffer): buffer for buffer in module.buffers()}})
    return shared.eval()


def _upsample(maps: Tensor, first: float, last: float, size: int) -> Tensor:
    """Interpolate maps (N, side, side) to pixels (N, size, size), given the centres of the outermost receptive fields.

    Maps fade out beyond these centres: extended to the border, the outermost positions would outweigh the others.
    """
    line = 2 * (torch.arange(size, dtype=maps.dtype, device=maps.device) - first) / (last - first) - 1
    grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), 2).expand(len(maps), -1, -1, -1)
    return grid_sample(maps[:, None], grid, align_corners=True)[:, 0]


def _smooth(maps: Tensor, deviation: float) -> Tensor:
    """Blur maps (N, size, size) with zero padding."""
    margin = math.ceil(3 * deviation)
    blurred: Tensor = gaussian_blur(pad(maps[:, None], [margin] * 4), 2 * margin + 1, deviation)
    return blurred[:, 0, margin:-margin, margin:-margin]
