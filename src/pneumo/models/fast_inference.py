"""Inference copies of networks: folded batch normalization, compilation, and the exportable scorer."""

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
from pneumo.models.ood_detector import LevelMeans, OodDetector

PASS = 2  # part of the features' keys: change it whenever the pass computes otherwise
Change = Callable[[Tensor, int], Tensor]


class FeaturePass:
    """A copy of a backbone that computes the same features, up to rounding, faster.

    It is frozen, its batch normalisations are folded into the convolutions before them, its weights lie channels last,
    and, if so wanted, it is compiled. It computes in single precision, also where heads are trained in a mixed one:
    features are computed only once, and a head predicts the same from them as its checkpoint does from images.
    """

    def __init__(
        self, backbone: Backbone, image_size: int, device: torch.device, batch_size: int, compiled: bool
    ) -> None:
        """Prepare the copy; `compiled` uses torch.compile."""
        self.device = device
        self.batch_size = batch_size
        self.backbone = fast_copy(backbone, image_size).to(device)
        if compiled:
            self.backbone.compile(options={"freezing": True}, dynamic=False)

    def run(self, blocks: Iterable[Tensor], start: int, change: Change | None) -> Iterator[Array]:
        """Compute features (n, D) float32 of blocks of up to batch_size images (n, 1, H, W) uint8, from `start` on.

        `change` maps a block on the device, and the number of its first image, to the images that shall be seen.
        """
        for block in blocks:
            count = len(block)
            with torch.inference_mode():
                image = block.to(self.device)
                if change is not None:
                    image = change(image, start)
                if count < self.batch_size:  # a compiled network would be compiled anew
                    image = torch.cat((image, image.new_zeros(self.batch_size - count, *image.shape[1:])))
                try:
                    features = self.backbone(image)[:count].float().cpu().numpy()
                except torch.OutOfMemoryError as error:
                    raise HardwareError(
                        f"A pass of {self.batch_size} images does not fit into the GPU's memory: take fewer at a time, "
                        f"such as features.batch_size={max(1, self.batch_size // 4)}."
                    ) from error
            yield features
            start += count


def fast_copy(backbone: Backbone, image_size: int) -> Backbone:
    """Return a frozen copy that computes the same, up to rounding, in less time."""
    copied = copy.deepcopy(backbone)
    freeze_module(copied)
    copied.network = fold_batch_norm(copied.network, image_size)
    return copied.to(memory_format=torch.channels_last)


def default_batch_size(device: torch.device) -> int:
    """Return the number of images for a pass: small ones stay in a CPU's caches, large ones fill a GPU."""
    return 16 if device.type == "cpu" else 128


def fold_batch_norm(network: nn.Module, image_size: int) -> nn.Module:
    """Return a copy of a frozen network whose batch normalisations are folded into the convolutions before them.

    Which one follows which is seen by running the network, whatever its code looks like. Should the result differ,
    because something else takes a convolution's output too, the network is given back as it is.
    """
    folded = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        image = torch.randn(1, 3, image_size, image_size, generator=generator).to(next(network.parameters()))
        for name, (convolution, normalisation) in _find_pairs(folded, image).items():
            fused = fuse_conv_bn_eval(convolution, normalisation).requires_grad_(False)
            convolution.weight, convolution.bias = fused.weight, fused.bias
            rest = [normalisation.drop, normalisation.act] if isinstance(normalisation, BatchNormAct2d) else []
            folded.set_submodule(name, nn.Sequential(*rest))
        expected, found = network(image), folded(image)
    scale = expected.abs().max()
    return folded if bool((found - expected).abs().max() <= 1e-4 * scale) else network


def _find_pairs(network: nn.Module, image: Tensor) -> dict[str, tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Run a network and return, by the path of each normalisation, the convolution whose output it takes."""
    outputs: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # the tensors are kept: numbers of dead ones are used again
    calls: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def give(module: nn.Module, arguments: tuple[Tensor], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        outputs[id(output)] = module, output

    def take(module: nn.Module, arguments: tuple[Tensor]) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        if id(arguments[0]) in outputs:
            calls.append((outputs[id(arguments[0])][0], module))

    hooks: list[RemovableHandle] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(give))
        elif type(module) in (nn.BatchNorm2d, BatchNormAct2d) and module.running_mean is not None:
            hooks.append(module.register_forward_pre_hook(take))
    network(image)
    for hook in hooks:
        hook.remove()
    names = {module: name for name, module in network.named_modules()}
    times = Counter(layer for pair in calls for layer in pair)
    # A layer that is used twice stays as it is.
    return {names[after]: (before, after) for before, after in calls if times[before] == times[after] == 1}


class Scorer(nn.Module):
    """The exportable network of a checkpoint: probabilities and OOD scores of images, in one pass.

    It is a frozen copy with batch normalisations folded into convolutions, made of tensors alone, so that it can be
    exported. Probabilities are those of the test, up to rounding: after temperature and, where the checkpoint asks for
    it, the mean with the mirror image.
    """

    mean: Tensor
    scale: Tensor
    components: Tensor

    def __init__(self, classifier: Classifier) -> None:
        """Copy a classifier, which stays as it is."""
        super().__init__()
        self.levels = LevelMeans(fast_copy(classifier.backbone, classifier.image_size), classifier.image_size)
        self.head = copy.deepcopy(classifier.head)
        self.temperature, self.flip = classifier.temperature, classifier.flip_test
        self.scores_ood = classifier.ood_detector is not None
        for name, tensor in classifier.ood_detector._asdict().items() if classifier.ood_detector else ():
            self.register_buffer(name, tensor)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Score images (N, 1, S, S) uint8: probabilities (N, classes), and OOD scores (N,); more than 1 is too much.

        The second are 0 where the checkpoint has nothing to tell it by.
        """
        features, means = self.levels(image)
        logits = self.head(features)
        if self.flip:
            logits = (logits + self.head(self.levels.backbone(image.flip(3)))) / 2
        probability = torch.softmax(logits / self.temperature, dim=1)
        if not self.scores_ood:
            return probability, means.new_zeros(means.shape[0])  # `len` would fix the batch size of an export
        return probability, OodDetector(self.mean, self.scale, self.components).score(means)
