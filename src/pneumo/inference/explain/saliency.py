"""Saliency maps: HiResCAM, Grad-CAM and occlusion, and the layer at which they are computed."""

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

from pneumo.errors import ConfigError
from pneumo.models.backbones import Backbone
from pneumo.models.classifier import log_odds
from pneumo.models.feature_maps import Layout, find_layout, hooked

# The first is the default. Draelos and Carin 2020 multiply gradients by activations, place by place; Selvaraju et al.
# 2017 average gradients over all places first; Zeiler and Fergus 2014 cover squares: slow, but it needs no layer.
METHODS = ("hirescam", "gradcam", "occlusion")
_SMOOTHING = 16  # maps are smoothed by a standard deviation of this part of the image's side
_M = TypeVar("_M", bound=nn.Module)


@dataclass(frozen=True)
class Layer:
    """A module whose output is a map of places through which all of the answer goes."""

    name: str  # its dotted path in the network
    layout: Layout  # of its output
    first: float  # middle of what the first row, or column, of places sees of the image, in pixels
    last: float  # the same of the last one


@dataclass(frozen=True)
class _Output:
    """An output that could be a map of places, and the step of the computation by which what follows takes it."""

    name: str
    tensor: Tensor
    layout: Layout
    taken: Node


def find_layer(network: nn.Module, image_size: int) -> Layer | None:
    """Find the layer to look at, if there is one, by running a frozen network once on two images of noise.

    All of the answer goes through its output, the answer depends on several of its places, and what follows mixes
    neighbouring places for the last time. Behind that, evidence no longer lies where it was seen: in a fine-tuned
    EfficientNet-Lite0 it gathers amid the film, where places see both lungs (docs/EXPLANATIONS.md).
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
        middle = last.layout.to_map(last.tensor)[:, :, last.layout.side // 2, last.layout.side // 2]
        (seen,) = torch.autograd.grad(_mix(middle, generator), output.tensor, retain_graph=True)
        if _has_places(output.layout, seen):
            return _locate(output, image, generator)
    return None if last is None else _locate(last, image, generator)


def _run(network: nn.Module, image: Tensor) -> tuple[list[_Output], Tensor]:
    """Run a network and return, in their order, all outputs that could be maps of places, and its features."""
    calls: dict[str, list[_Output]] = {}

    def keep(name: str, output: object) -> Tensor | None:
        if not (isinstance(output, Tensor) and output.requires_grad and (layout := find_layout(output, len(image)))):
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

    Convolutions without padding leave a margin that is the middle of no place's view. Where even the view of a place
    amid the image is cut off, places are taken to cover the image evenly.
    """
    size, side = image.shape[-1], output.layout.side

    def view(place: int) -> tuple[int, int]:
        answer = _mix(output.layout.to_map(output.tensor)[:, :, place, place], generator)
        (gradient,) = torch.autograd.grad(answer, image, retain_graph=True)
        columns = gradient.abs().sum((0, 1, 2)).nonzero()
        return int(columns.min()), int(columns.max())

    low, high = view(side // 2)
    first, last = (size / side - 1) / 2, size - (size / side + 1) / 2
    if low > 0 and high < size - 1:
        first, last = view(0)[1] - (high - low) / 2, view(side - 1)[0] + (high - low) / 2
    return Layer(output.name, output.layout, first, last)


class ExplainableClassifier(Protocol):
    """What is explained, such as a `Classifier`; its temperature does not matter, since maps have a maximum of 1."""

    backbone: Backbone
    head: nn.Linear
    classes: list[str]
    image_size: int
    flip_test: bool


class SaliencyMapper:
    """Computes saliency maps of images for a class.

    What is explained is the log odds of the class, with `flip_test` the mean over an image and its mirror image. Of two
    classes they are the difference of the logits, so that what raises both alike does not show. A copy of the network
    that shares its weights has the hooks, modes and gradients. Make a new one after moving the classifier to another
    device, and use one from one thread at a time.
    """

    def __init__(self, classifier: ExplainableClassifier, method: str = METHODS[0]) -> None:
        """Find the layer to look at, which all of `METHODS` but occlusion need."""
        if method not in METHODS:
            raise ConfigError(f"method={method}: explanations are made by one of {', '.join(METHODS)}.")
        self.method, self.flip_test, self.size = method, classifier.flip_test, classifier.image_size
        self.classes = list(classifier.classes)
        self.backbone, self.head = _share(classifier.backbone), _share(classifier.head)
        self.places = nn.Identity()  # captum looks at the output of a module, so the layer's places go through this one
        self.layer = None if method == "occlusion" else self._find_layer()

    def __call__(self, images: Tensor, targets: Tensor | None = None) -> Tensor:
        """Compute the maps of a batch at once: with mirror images, in two forward passes and one backward pass.

        Maps of images (N, 1, size, size) uint8 are (N, size, size) float32, on the same device: how much speaks for the
        class at each pixel, from 0 to 1, the maximum of the image. Where nothing does, all is 0. `targets` has the
        classes, (N,); None: the positive one of two, the predicted one of several.
        """
        with torch.inference_mode(False), torch.set_grad_enabled(self.layer is not None):
            pixels = images.to(self.backbone.mean.device, self.backbone.mean.dtype)
            pixels = (pixels / 255 - self.backbone.mean) / self.backbone.std
            if targets is None and len(self.classes) == 2:
                targets = torch.ones(len(pixels), dtype=torch.long)
            elif targets is None:
                with torch.no_grad():
                    targets = self._log_odds(pixels).argmax(1)
            found = self._attribute(pixels, targets.to(pixels.device)).float()
            smooth = _smooth(found, self.size / _SMOOTHING).relu()
            maps: Tensor = smooth / smooth.amax((1, 2), keepdim=True).clamp_min(torch.finfo(smooth.dtype).tiny)
        return maps.to(images.device)

    def _find_layer(self) -> Layer:
        network = self.backbone.network
        with torch.inference_mode(False), torch.enable_grad():
            layer = find_layer(network, self.size)
        if layer is None:
            raise ConfigError(
                f"method={self.method} looks at a layer whose output is a map of several places and carries all of the "
                f"answer, and finds none in {type(network).__name__} at {self.size} pixels: take method=occlusion, "
                "which needs no layer."
            )

        def show(module: nn.Module, arguments: object, output: Tensor) -> Tensor:
            return layer.layout.from_map(self.places(layer.layout.to_map(output)), output)

        network.get_submodule(layer.name).register_forward_hook(show)
        return layer

    def _log_odds(self, pixels: Tensor) -> Tensor:
        views = torch.cat((pixels, pixels.flip(3))) if self.flip_test else pixels
        logits: Tensor = self.head(self.backbone.network(views))
        return log_odds(torch.stack(torch.split(logits, len(pixels))).mean(0))

    def _attribute(self, pixels: Tensor, targets: Tensor) -> Tensor:
        """Compute what each pixel adds to the log odds, or takes from them, (N, size, size)."""
        if self.layer is None:
            return self._occlude(pixels, targets)
        kind = LayerGradCam if self.method == "gradcam" else LayerGradientXActivation
        found: Tensor = kind(self._log_odds, self.places).attribute(pixels, target=targets).detach().sum(1)
        found = _spread(found, self.layer.first, self.layer.last, self.size)
        if self.flip_test:
            straight, mirrored = torch.split(found, len(pixels))
            found = straight + mirrored.flip(2)
        return found

    def _occlude(self, pixels: Tensor, targets: Tensor) -> Tensor:
        """Cover squares by the image's own blur: any grey would look like air or like an opacity itself."""
        side, step = max(1, self.size // 5), max(1, self.size // 10)
        blurred = gaussian_blur(pixels, 2 * side + 1, 0.75 * side)
        squares = {"sliding_window_shapes": (3, side, side), "strides": (3, step, step)}
        found: Tensor = Occlusion(self._log_odds).attribute(pixels, target=targets, baselines=blurred, **squares)
        return found.sum(1)


def _share(module: _M) -> _M:
    """Return a frozen copy of a module in evaluation mode, which has the same weights in the same memory."""
    weights = {id(weight): nn.Parameter(weight.detach(), False) for weight in module.parameters()}
    shared: _M = copy.deepcopy(module, {**weights, **{id(buffer): buffer for buffer in module.buffers()}})
    return shared.eval()


def _spread(places: Tensor, first: float, last: float, size: int) -> Tensor:
    """Interpolate maps (N, side, side) to pixels (N, size, size), given the pixels that the places look at.

    Beyond the outermost places they fade out: drawn out to the border, these would outweigh the others.
    """
    pixels = torch.arange(size, dtype=places.dtype, device=places.device)
    line = 2 * (pixels - first) / (last - first) - 1
    grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), 2).expand(len(places), -1, -1, -1)
    return grid_sample(places[:, None], grid, align_corners=True)[:, 0]


def _smooth(found: Tensor, deviation: float) -> Tensor:
    """Blur maps (N, size, size), with nothing around them."""
    margin = math.ceil(3 * deviation)
    blurred: Tensor = gaussian_blur(pad(found[:, None], [margin] * 4), 2 * margin + 1, deviation)
    return blurred[:, 0, margin:-margin, margin:-margin]
