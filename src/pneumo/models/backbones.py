"""Backbones: a network without its last linear layer, and the new head."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pneumo.common.hardware import choose_memory_format
from pneumo.common.text import plain
from pneumo.errors import ConfigError
from pneumo.models.registry import create
from pneumo.models.weights import load_weights


class Backbone(nn.Module):
    """A network that maps grey images to features.

    Images are expanded to three channels and normalised here, on the device, as the network's source wants them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor, features: int) -> None:
        """Wrap a headless network that maps (N, 3, H, W), normalised by mean (3,) and std (3,), to (N, features)."""
        super().__init__()
        self.network = network
        self.features = features
        self.register_buffer("mean", mean.view(3, 1, 1))
        self.register_buffer("std", std.view(3, 1, 1))

    @property
    def depthwise(self) -> bool:
        """Whether the network has convolutions of single channels."""
        layers = (layer for layer in self.network.modules() if isinstance(layer, nn.Conv2d))
        return any(layer.groups == layer.in_channels > 1 for layer in layers)

    def forward(self, image: Tensor) -> Tensor:
        """Map images (N, 1, H, W), uint8, to features (N, features)."""
        features: Tensor = self.network((image.to(self.mean.dtype) / 255 - self.mean) / self.std)
        return features


def build_backbone(
    architecture: str, weights: str | None, head_path: str | None, image_size: int, classes: int, freeze: bool = False
) -> tuple[Backbone, nn.Linear]:
    """Build a backbone and a new head of so many classes, which maps its features to logits.

    `architecture` and `weights` are as for `pneumo.models.registry.create` and `pneumo.models.weights.load_weights`;
    None leaves random weights. `head_path` is the layer to replace, such as `fc` or `classifier.6`; None: the last
    linear layer. `freeze` makes the backbone constant.

    Raises:
        ConfigError: Unknown architecture, or its head cannot be replaced.
        WeightsError: The weights cannot be found, fetched or fitted.
    """
    found = create(architecture, image_size)
    network = found.network
    remove_auxiliary_heads(network)
    path = find_head(network, architecture, head_path)
    if weights is not None:
        load_weights(found, weights, path)
    features = network.get_submodule(path).in_features
    assert isinstance(features, int)
    network.set_submodule(path, nn.Identity())
    backbone = Backbone(network, torch.tensor(found.mean), torch.tensor(found.std), features)
    _check(backbone, architecture, path, image_size)
    if freeze:
        freeze_module(backbone)
    # A checkpoint opens on the CPU and shall compute there as its run did, to the last bit.
    backbone.to(memory_format=choose_memory_format("cpu", freeze, backbone.depthwise))
    return backbone, nn.Linear(features, classes)


def find_head(network: nn.Module, architecture: str, head_path: str | None) -> str:
    """Return the dotted path of the network's head: `head_path`, or else the last linear layer."""
    linear: list[str] = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if head_path is None and linear:
        head_path = linear[-1]
    if head_path is not None and head_path in linear:
        return head_path
    raise ConfigError(
        f"model.head_path={head_path} is not a linear layer of {architecture}. Its last linear layers are "
        f"{', '.join(linear[-3:]) or 'none: choose another architecture'}."
    )


def remove_auxiliary_heads(network: nn.Module) -> None:
    """Remove the heads that torchvision's Inception family trains in passing, so that it returns plain tensors."""
    for name, _ in list(network.named_children()):
        if name.lower().startswith("aux"):
            setattr(network, name, None)
    if hasattr(network, "aux_logits"):
        setattr(network, "aux_logits", False)  # noqa: B010 (nn.Module's own attributes are tensors and modules to mypy)


def freeze_module(module: nn.Module) -> None:
    """Make a module constant: no gradients, and normalisation by its stored statistics."""
    module.requires_grad_(False)
    module.eval()


def trains_on_one_image(network: nn.Module, image_size: int) -> bool:
    """Return whether a network in training mode maps a batch of one image (1, 1, image_size, image_size) uint8.

    Batch normalization needs more than one value per channel, so it fails on one image where the image has been reduced
    to one pixel. Only shapes are computed: no weight, stored statistic or random number changes.
    """
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in state.items()}
    training = network.training
    network.train()
    try:
        with torch.no_grad():
            image = torch.zeros(1, 1, image_size, image_size, dtype=torch.uint8, device="meta")
            functional_call(network, shapes, (image,))
    except ValueError as error:
        if "more than 1 value per channel" in str(error):
            return False
        raise
    except (RuntimeError, NotImplementedError):  # an operation that has no shapes without values: training will show
        return True
    finally:
        network.train(training)
    return True


def _check(backbone: Backbone, architecture: str, path: str, image_size: int) -> None:
    """Run one black image, and raise a ConfigError if that shows that the replaced layer was not the last."""
    backbone.eval()
    try:
        with torch.inference_mode():
            shape = tuple(backbone(torch.zeros(1, 1, image_size, image_size, dtype=torch.uint8)).shape)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigError(
            f"{architecture} without {path} fails on images of data.image_size={image_size} "
            f"({plain(error)}): choose the size that it was made for, often 224, name another "
            "layer to replace as model.head_path=PATH, or take another architecture."
        ) from error
    finally:
        backbone.train()
    if shape != (1, backbone.features):
        raise ConfigError(
            f"{architecture} without {path} gives features of shape {shape} instead of (1, {backbone.features}), so "
            "that layer is not its last: name the layer to replace as model.head_path=PATH."
        )
