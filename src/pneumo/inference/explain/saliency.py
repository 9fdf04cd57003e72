"""Saliency maps: HiResCAM, Grad-CAM and occlusion."""

import copy
import math
from typing import Protocol, TypeVar

import torch
from captum.attr import LayerGradCam, LayerGradientXActivation, Occlusion
from torch import Tensor, nn
from torch.nn.functional import grid_sample, pad
from torchvision.transforms.functional import gaussian_blur

from pneumo.common.input_format import InputFormat
from pneumo.errors import ConfigError
from pneumo.inference.explain.saliency_layers import Layer, find_layer
from pneumo.models.backbones import Backbone
from pneumo.models.logits import log_odds
from pneumo.models.lung_crop import place_crops

# The first is the default. Sources: Draelos and Carin 2020 (gradient times activation at each position), Selvaraju et
# al. 2017 (gradients averaged over all positions), Zeiler and Fergus 2014 (occluded squares: slow, but needs no layer).
METHODS = ("hirescam", "gradcam", "occlusion")
_SMOOTHING = 16  # the image's side, divided by the standard deviation of the blur
_M = TypeVar("_M", bound=nn.Module)


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
    Of a crop to the lungs, the mirror image of the crop is used; predictions crop the mirror image itself.
    Hooks, modes and gradients belong to a copy of the network that shares its weights. Build a new mapper after moving
    the classifier to another device. Mappers are not thread-safe.
    """

    def __init__(self, classifier: ExplainableClassifier, method: str = METHODS[0]) -> None:
        """Build a mapper; every method except occlusion needs a layer found by `find_layer`."""
        if method not in METHODS:
            raise ConfigError(f"method={method} is unknown: it must be one of {', '.join(METHODS)}.")
        self.method, self.flip_test, self.classes = method, classifier.flip_test, list(classifier.classes)
        self.image_size = classifier.input_format.size
        self.size = classifier.backbone.network_size(self.image_size)
        self.backbone, self.head = _share_weights(classifier.backbone), _share_weights(classifier.head)
        self.feature_map = nn.Identity()  # the layer's output passes through this module, which captum can hook
        self.layer = None if method == "occlusion" else self._find_layer()

    def __call__(self, images: Tensor, targets: Tensor | None = None) -> Tensor:
        """Compute saliency maps (N, S, S) float32 of images (N, 1, S, S) uint8, on the same device.

        Each map is scaled to a maximum of 1; without evidence for the class, it is 0 everywhere. `targets` are the
        explained classes, (N,); None: the positive class of two, otherwise the predicted class.
        """
        with torch.inference_mode(False), torch.set_grad_enabled(self.layer is not None):
            pixels, boxes = self._prepare(images.to(self.backbone.mean.device))
            if targets is None and len(self.classes) == 2:
                targets = torch.ones(len(pixels), dtype=torch.long)
            elif targets is None:
                with torch.no_grad():
                    targets = self._log_odds(pixels).argmax(1)
            attribution = self._attribute(pixels, targets.to(pixels.device)).float()
            smooth = _smooth(attribution, self.size / _SMOOTHING).relu()
            if boxes is not None:
                smooth = place_crops(smooth, boxes, self.image_size, self.image_size)
            maps: Tensor = smooth / smooth.amax((1, 2), keepdim=True).clamp_min(torch.finfo(smooth.dtype).tiny)
        return maps.to(images.device)

    def _prepare(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the network's input, (N, 3, size, size), and the boxes of crops, (N, 4), if any."""
        crop = self.backbone.crop
        if crop is None:
            return self.backbone.normalize(images), None
        boxes = crop.boxes(images)
        return self.backbone.normalize(crop.crop(images, boxes)), boxes

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
