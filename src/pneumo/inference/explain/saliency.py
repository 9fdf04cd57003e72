"""Saliency maps of a classifier: HiResCAM, Grad-CAM and occlusion."""

import copy
import math
from typing import Protocol, TypeVar

import torch
from captum.attr import LayerGradCam, LayerGradientXActivation, Occlusion
from torch import Tensor, nn
from torch.nn.functional import grid_sample, pad
from torchvision.transforms.functional import gaussian_blur

from pneumo.errors import ConfigError
from pneumo.inference.explain.layers import Layer, find_layer
from pneumo.models.backbones import Backbone, log_odds

# The first is the default. Draelos and Carin 2020 multiply gradients by activations, place by place; Selvaraju et al.
# 2017 average gradients over all places first; Zeiler and Fergus 2014 cover squares: slow, but it needs no layer.
METHODS = ("hirescam", "gradcam", "occlusion")
_SMOOTHING = 16  # maps are smoothed by a standard deviation of this part of the image's side
_M = TypeVar("_M", bound=nn.Module)


class ExplainableClassifier(Protocol):
    """The part of `pneumo.models.classifier.Classifier` that maps require.

    The temperature is not among it: maps are scaled to a maximum of 1, so it has no effect.
    """

    backbone: Backbone
    head: nn.Linear
    classes: list[str]
    image_size: int
    flip_test: bool


class SaliencyMapper:
    """Computes saliency maps of images for a class.

    Maps explain the log odds of the class, with `flip_test` those of the mean logits of an image and its mirror image.
    For two classes the log odds are the difference of the logits, so what raises both logits equally has no effect.

    Hooks and gradients use a copy of the network that shares its weights, so the classifier does not change. Build a
    new mapper after moving the classifier to another device, and use each from one thread at a time.
    """

    def __init__(self, classifier: ExplainableClassifier, method: str = METHODS[0]) -> None:
        """Find the layer whose output the maps show.

        Args:
            classifier: The classifier, or another object with these attributes.
            method: hirescam, gradcam or occlusion; see `METHODS`.

        Raises:
            ConfigError: Unknown method, or no layer of the network fits.
        """
        if method not in METHODS:
            raise ConfigError(f"method={method}: explanations are made by one of {', '.join(METHODS)}.")
        self.method, self.flip_test, self.size = method, classifier.flip_test, classifier.image_size
        self.classes = list(classifier.classes)
        self.backbone, self.head = _share(classifier.backbone), _share(classifier.head)
        self.places = nn.Identity()  # captum looks at the output of a module, so the layer's places go through this one
        self.layer = None if method == "occlusion" else self._find_layer()

    def __call__(self, images: Tensor, targets: Tensor | None = None) -> Tensor:
        """Compute the maps of a batch at once: with mirror images, in two forward passes and one backward pass.

        Args:
            images: uint8, (N, 1, size, size).
            targets: Indices of the classes to explain, (N,). None: the positive one of two classes, the predicted one
                of several.

        Returns:
            Maps (N, size, size), float32, on the images' device: how much speaks for the class at each pixel, from 0 to
            1, the maximum of the image. Where nothing does, all is 0.
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
