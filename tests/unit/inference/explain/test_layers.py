import pytest
import torch
from torch import Tensor, nn

from pneumo.inference.explain.saliency import Layer, find_layer
from pneumo.models.backbones import build_backbone, freeze_module
from pneumo.models.feature_maps import Layout


def own(image_size: int) -> Layer:
    torch.manual_seed(0)
    backbone, _ = build_backbone("pneumo/xraychestnet", None, None, image_size, 2, freeze=True)
    layer = find_layer(backbone.network, image_size)
    assert layer is not None
    return layer


@pytest.mark.parametrize(("size", "side"), [(48, 8), (96, 20)])
def test_places_of_unpadded_convolutions_lie_where_they_look(size: int, side: int) -> None:
    # After 5x5, pooling, 3x3, pooling and 3x3, before the last pooling, place i sees the pixels 4i to 4i + 19.
    assert own(size) == Layer("features.2.0", Layout("channels first", side), 9.5, 4 * (side - 1) + 9.5)


def test_where_the_last_map_is_one_place_an_earlier_one_is_taken() -> None:
    assert own(24) == Layer("features.1", Layout("channels first", 4), 5.5, 17.5)


class OwnNetwork(nn.Module):
    """Activations in place, a module that is called twice, and a way around the last map."""

    def __init__(self, bypass: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu, self.last, self.bypass = nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1), bypass

    def forward(self, image: Tensor) -> Tensor:
        inner = self.relu(self.second(self.relu(self.first(image))))
        pooled: Tensor = self.last(inner).relu_().mean((2, 3))
        return pooled + image.mean((1, 2, 3))[:, None] if self.bypass else pooled


def test_what_is_called_twice_or_changed_in_place_is_no_hindrance() -> None:
    network = OwnNetwork(bypass=False)
    freeze_module(network)
    layer = find_layer(network, 16)
    assert layer is not None
    assert (layer.name, layer.first, layer.last) == ("first", 0, 15)


def test_a_network_whose_answer_goes_other_ways_too_has_no_layer() -> None:
    network = OwnNetwork(bypass=True)
    freeze_module(network)
    assert find_layer(network, 16) is None
