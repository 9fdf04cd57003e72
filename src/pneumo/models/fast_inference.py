"""Inference copies of networks: folded batch normalization, compilation, and the exportable module."""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.hooks import RemovableHandle

from pneumo.common.array_cache import Array
from pneumo.errors import HardwareError
from pneumo.models.backbones import Backbone, freeze_module
from pneumo.models.classifier import Classifier
from pneumo.models.logits import calibrate_logits
from pneumo.models.ood_detector import MultiLevelBackbone, OodDetector

FEATURES_VERSION = 2  # part of the keys of cached features; increase it whenever features change
ImageTransform = Callable[[Tensor, int], Tensor]  # function of images and the index of the first one


class FeatureExtractor:
    """A faster copy of a backbone that computes the same features, up to rounding.

    It is frozen, with batch normalization folded into the preceding convolutions, weights in channels-last format, and
    optional compilation. It computes in single precision even if heads are trained in mixed precision. A head therefore
    predicts the same from cached features as its checkpoint predicts from images.
    """

    def __init__(
        self, backbone: Backbone, image_size: int, device: torch.device, batch_size: int, compiled: bool
    ) -> None:
        """Prepare the copy; `compiled` enables torch.compile."""
        self.device = device
        self.batch_size = batch_size
        self.backbone = fast_copy(backbone, image_size).to(device)
        if compiled:
            self.backbone.compile(options={"freezing": True}, dynamic=False)

    def run(self, blocks: Iterable[Tensor], start: int, transform: ImageTransform | None) -> Iterator[Array]:
        """Compute features (n, D) float32 for each block of up to batch_size images (n, 1, H, W) uint8.

        `transform`, if any, is applied to each block on the device. `start` is the index of the first image of the
        first block.
        """
        for block in blocks:
            count = len(block)
            with torch.inference_mode():
                image = block.to(self.device)
                if transform is not None:
                    image = transform(image, start)
                if count < self.batch_size:  # a compiled network would be recompiled
                    image = torch.cat((image, image.new_zeros(self.batch_size - count, *image.shape[1:])))
                try:
                    features = self.backbone(image)[:count].float().cpu().numpy()
                except torch.OutOfMemoryError as error:
                    raise HardwareError(
                        f"A batch of {self.batch_size} images does not fit into GPU memory. Use a smaller one, such as "
                        f"features.batch_size={max(1, self.batch_size // 4)}."
                    ) from error
            yield features
            start += count


def fast_copy(backbone: Backbone, image_size: int) -> Backbone:
    """Return a faster frozen copy that computes the same features, up to rounding."""
    copied = copy.deepcopy(backbone)
    freeze_module(copied)
    copied.network = fold_batch_norm(copied.network, backbone.network_size(image_size))
    return copied.to(memory_format=torch.channels_last)


def default_batch_size(device: torch.device) -> int:
    """Return the default batch size: small batches stay in CPU caches, large ones fill a GPU."""
    return 16 if device.type == "cpu" else 128


def fold_batch_norm(network: nn.Module, image_size: int) -> nn.Module:
    """Return a copy of a frozen network with batch normalization folded into the preceding convolutions.

    Pairs of layers are found by a forward pass, regardless of the network's code. If the outputs then differ, such as
    when another layer also uses a convolution's output, the original network is returned.
    """
    folded = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        image = torch.randn(1, 3, image_size, image_size, generator=generator).to(next(network.parameters()))
        for name, (convolution, normalization) in _find_pairs(folded, image).items():
            fused = fuse_conv_bn_eval(convolution, normalization).requires_grad_(False)
            convolution.weight, convolution.bias = fused.weight, fused.bias
            rest = [normalization.drop, normalization.act] if isinstance(normalization, BatchNormAct2d) else []
            folded.set_submodule(name, nn.Sequential(*rest))
        expected, output = network(image), folded(image)
    scale = expected.abs().max()
    return folded if bool((output - expected).abs().max() <= 1e-4 * scale) else network


def _find_pairs(network: nn.Module, image: Tensor) -> dict[str, tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Run a network and return pairs of convolution and following normalization, by the path of the latter."""
    outputs: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # keeps the tensors, since ids of freed ones are reused
    calls: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def record_output(module: nn.Module, arguments: tuple[Tensor], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        outputs[id(output)] = module, output

    def record_input(module: nn.Module, arguments: tuple[Tensor]) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        if id(arguments[0]) in outputs:
            calls.append((outputs[id(arguments[0])][0], module))

    hooks: list[RemovableHandle] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(record_output))
        elif type(module) in (nn.BatchNorm2d, BatchNormAct2d) and module.running_mean is not None:
            hooks.append(module.register_forward_pre_hook(record_input))
    network(image)
    for hook in hooks:
        hook.remove()
    names = {module: name for name, module in network.named_modules()}
    times = Counter(layer for pair in calls for layer in pair)
    # Layers that are used twice are not folded.
    return {names[after]: (before, after) for before, after in calls if times[before] == times[after] == 1}


class InferenceModule(nn.Module):
    """The exportable module of a checkpoint, which computes probabilities and OOD scores in one forward pass.

    It is a frozen copy with folded batch normalization that uses only tensor operations, as export requires.
    Probabilities equal those of the test, up to rounding: with the temperature, the intercept and, if set in the
    checkpoint, flip averaging.
    """

    mean: Tensor
    scale: Tensor
    components: Tensor

    def __init__(self, classifier: Classifier) -> None:
        """Copy a classifier, which is not modified."""
        super().__init__()
        size = classifier.input_format.size
        self.levels = MultiLevelBackbone(fast_copy(classifier.backbone, size), size)
        self.head = copy.deepcopy(classifier.head)
        self.temperature, self.intercept = classifier.temperature, classifier.intercept
        self.flip = classifier.flip_test
        self.scores_ood = classifier.ood_detector is not None
        for name, tensor in classifier.ood_detector._asdict().items() if classifier.ood_detector else ():
            self.register_buffer(name, tensor)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Compute probabilities (N, classes) and OOD scores (N,) of images (N, 1, S, S) uint8.

        Images with an OOD score above 1 are out of distribution. Without an OOD detector, scores are 0.
        """
        features, means = self.levels(image)
        logits = self.head(features)
        if self.flip:
            logits = (logits + self.head(self.levels.backbone(image.flip(3)))) / 2
        probability = torch.softmax(calibrate_logits(logits, self.temperature, self.intercept), dim=1)
        if not self.scores_ood:
            return probability, means.new_zeros(means.shape[0])  # `len` would fix the batch size of an export
        return probability, OodDetector(self.mean, self.scale, self.components).score(means)
