"""Backbones: networks whose last linear layer is replaced by a new head."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pneumo.common.hardware import choose_memory_format
from pneumo.common.text import short_line
from pneumo.errors import ConfigError
from pneumo.models.lung_crop import LungCrop
from pneumo.models.registry import create
from pneumo.models.weights import load_weights


class Backbone(nn.Module):
    """A network that maps grayscale images to features.

    Images are cropped to the lungs if configured, expanded to three channels and normalized on the device, with the
    mean and std of the network's source.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, mean: Tensor, std: Tensor, features: int, lung_crop: int | None = None
    ) -> None:
        """Wrap a headless network that maps (N, 3, H, W), normalized by mean (3,) and std (3,), to (N, features).

        With `lung_crop`, the network receives crops of this height and width in pixels. Their locator is random: see
        `pneumo.training.lung_training`.
        """
        super().__init__()
        self.network = network
        self.features = features
        self.crop = None if lung_crop is None else LungCrop(lung_crop)
        self.register_buffer("mean", mean.view(3, 1, 1))
        self.register_buffer("std", std.view(3, 1, 1))

    @property
    def depthwise(self) -> bool:
        """True if the network has depthwise convolutions."""
        layers = (layer for layer in self.network.modules() if isinstance(layer, nn.Conv2d))
        return any(layer.groups == layer.in_channels > 1 for layer in layers)

    def forward(self, image: Tensor) -> Tensor:
        """Map images (N, 1, H, W), uint8, to features (N, features)."""
        features: Tensor = self.network(self.normalize(image if self.crop is None else self.crop(image)))
        return features

    def normalize(self, image: Tensor) -> Tensor:
        """Map images (N, 1, H, W) with grey values from 0 to 255 to the network's input, (N, 3, H, W)."""
        return (image.to(self.mean.dtype) / 255 - self.mean) / self.std

    def network_size(self, image_size: int) -> int:
        """Return the height and width of the network's input for images of `image_size` pixels."""
        return image_size if self.crop is None else self.crop.size


def build_backbone(
    architecture: str,
    weights: str | None,
    head_path: str | None,
    image_size: int,
    classes: int,
    freeze: bool = False,
    lung_crop: int | None = None,
) -> tuple[Backbone, nn.Linear]:
    """Build a backbone and a new linear head that maps its features to logits of `classes` classes.

    Args:
        architecture: See `pneumo.models.registry.create`.
        weights: See `pneumo.models.weights.load_weights`; None: random weights.
        head_path: Path of the layer to replace, such as `fc` or `classifier.6`; None: the last linear layer.
        image_size: Height and width of the images in pixels.
        classes: Number of classes.
        freeze: Freeze the backbone.
        lung_crop: See `Backbone`.

    Raises:
        ConfigError: The architecture is unknown or its head cannot be replaced.
        WeightsError: The weights cannot be found, downloaded or matched to the network.
    """
    with _named_size(lung_crop):
        source = create(architecture, lung_crop or image_size)
    network = source.network
    remove_auxiliary_heads(network)
    path = find_head(network, architecture, head_path)
    if weights is not None:
        load_weights(source, weights, path)
    features = network.get_submodule(path).in_features
    assert isinstance(features, int)
    network.set_submodule(path, nn.Identity())
    backbone = Backbone(network, torch.tensor(source.mean), torch.tensor(source.std), features, lung_crop)
    with _named_size(lung_crop):
        _check_output(backbone, architecture, path, image_size)
    if freeze:
        freeze_module(backbone)
    # Checkpoints are loaded on the CPU and must reproduce the run bit for bit there.
    backbone.to(memory_format=choose_memory_format("cpu", freeze, backbone.depthwise))
    return backbone, nn.Linear(features, classes)


@contextmanager
def _named_size(lung_crop: int | None) -> Iterator[None]:
    """Replace data.image_size in errors about the network's input by model.lung_crop if this sets its size."""
    try:
        yield
    except ConfigError as error:
        if lung_crop is None:
            raise
        raise ConfigError(str(error).replace("data.image_size", "model.lung_crop")) from error


def find_head(network: nn.Module, architecture: str, head_path: str | None) -> str:
    """Return the dotted path of the network's head: `head_path`, or else the last linear layer."""
    linear: list[str] = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if head_path is None and linear:
        head_path = linear[-1]
    if head_path is not None and head_path in linear:
        return head_path
    raise ConfigError(
        f"model.head_path={head_path} is not a linear layer of {architecture}. "
        + (f"Use one of its last linear layers: {', '.join(linear[-3:])}." if linear else "Use another architecture.")
    )


def remove_auxiliary_heads(network: nn.Module) -> None:
    """Remove the auxiliary heads of torchvision's Inception family, so that it returns plain tensors."""
    for name, _ in list(network.named_children()):
        if name.lower().startswith("aux"):
            setattr(network, name, None)
    if hasattr(network, "aux_logits"):
        setattr(network, "aux_logits", False)  # noqa: B010 (mypy expects a tensor or module)


def freeze_module(module: nn.Module) -> None:
    """Freeze a module: no gradients, and evaluation mode with running statistics."""
    module.requires_grad_(False)
    module.eval()


def trains_on_one_image(backbone: Backbone, image_size: int) -> bool:
    """Return whether a backbone in training mode accepts a batch of one image (1, 1, image_size, image_size) uint8.

    Batch normalization requires more than one value per channel, so it fails for one image at a resolution of one
    pixel. Only shapes are computed: weights, running statistics and random number generators do not change.
    """
    network, size = backbone.network, backbone.network_size(image_size)
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in state.items()}
    training = network.training
    network.train()
    try:
        with torch.no_grad():
            image = torch.zeros(1, 3, size, size, dtype=backbone.mean.dtype, device="meta")
            functional_call(network, shapes, (image,))
    except ValueError as error:
        if "more than 1 value per channel" in str(error):
            return False
        raise
    except (RuntimeError, NotImplementedError):  # an operation without meta support: assume that it works
        return True
    finally:
        network.train(training)
    return True


def _check_output(backbone: Backbone, architecture: str, path: str, image_size: int) -> None:
    """Run one black image and raise a ConfigError unless the replaced layer was the last."""
    backbone.eval()
    try:
        with torch.inference_mode():
            shape = tuple(backbone(torch.zeros(1, 1, image_size, image_size, dtype=torch.uint8)).shape)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigError(
            f"{architecture} without {path} fails on images of data.image_size={backbone.network_size(image_size)} "
            f"({short_line(error)}). Use the image size of the architecture, often 224, replace another layer with "
            "model.head_path=PATH, or use another architecture."
        ) from error
    finally:
        backbone.train()
    if shape != (1, backbone.features):
        raise ConfigError(
            f"{architecture} without {path} returns features of shape {shape} instead of (1, {backbone.features}), so "
            "that layer is not its last. Set model.head_path to the path of the layer to replace."
        )
