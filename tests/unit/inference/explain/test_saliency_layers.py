import pytest
import torch
from torch import Tensor, nn

from pneumo.inference.explain.saliency_layers import Layer, find_layer
from pneumo.models.backbones import build_backbone, freeze_module
from pneumo.models.feature_maps import Layout


def layer_of_xraychestnet(image_size: int) -> Layer:
    torch.manual_seed(0)
    backbone, _ = build_backbone("pneumo/xraychestnet", None, None, image_size, 2, freeze=True)
    layer = find_layer(backbone.network, image_size)
    assert layer is not None
    return layer


@pytest.mark.parametrize(("size", "side"), [(48, 8), (96, 20)])
def test_positions_of_unpadded_convolutions_are_the_centres_of_their_receptive_fields(size: int, side: int) -> None:
    # After 5x5, pooling, 3x3, pooling and 3x3, the receptive field of position i covers the pixels 4i to 4i + 19.
    assert layer_of_xraychestnet(size) == Layer(
        "features.2.0", Layout("channels first", side), 9.5, 4 * (side - 1) + 9.5
    )


def test_an_earlier_layer_is_used_if_the_last_map_has_one_position() -> None:
    assert layer_of_xraychestnet(24) == Layer("features.1", Layout("channels first", 4), 5.5, 17.5)


class OwnNetwork(nn.Module):
    """A network with in-place activations, a module that is called twice, and an optional bypass of the last map."""

    def __init__(self, bypass: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu, self.last, self.bypass = nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1), bypass

    def forward(self, image: Tensor) -> Tensor:
        inner = self.relu(self.second(self.relu(self.first(image))))
        pooled: Tensor = self.last(inner).relu_().mean((2, 3))
        return pooled + image.mean((1, 2, 3))[:, None] if self.bypass else pooled


def test_modules_called_twice_and_in_place_activations_are_supported() -> None:
    network = OwnNetwork(bypass=False)
    freeze_module(network)
    layer = find_layer(network, 16)
    assert layer is not None
    assert (layer.name, layer.first, layer.last) == ("first", 0, 15)


def test_a_network_with_a_bypass_has_no_layer() -> None:
    network = OwnNetwork(bypass=True)
    freeze_module(network)
    assert find_layer(network, 16) is None
