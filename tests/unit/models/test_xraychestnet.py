import pytest
import torch

from pneumo.errors import ConfigError
from pneumo.models.xraychestnet import XrayChestNet


def test_number_of_parameters_equals_the_study() -> None:
    network = XrayChestNet(image_size=224, classes=2)
    assert sum(parameter.numel() for parameter in network.parameters()) == 18_511_524


@pytest.mark.parametrize(("size", "side"), [(224, 26), (64, 6), (24, 1)])
def test_first_linear_layer_depends_on_the_image_size(size: int, side: int) -> None:
    network = XrayChestNet(size, classes=3).eval()
    assert network.features(torch.zeros(1, 3, size, size)).shape == (1, 512, side, side)
    assert network(torch.zeros(2, 3, size, size)).shape == (2, 3)


def test_too_small_images_are_rejected() -> None:
    with pytest.raises(ConfigError, match="24 pixels"):
        XrayChestNet(23, classes=2)
