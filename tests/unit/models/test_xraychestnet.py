import pytest
import torch

from pneumo.errors import ConfigError
from pneumo.models.xraychestnet import XrayChestNet


def test_it_has_the_parameters_that_the_study_implies() -> None:
    network = XrayChestNet(image_size=224, classes=2)
    assert sum(parameter.numel() for parameter in network.parameters()) == 18_511_524


@pytest.mark.parametrize(("size", "side"), [(224, 26), (64, 6), (24, 1)])
def test_the_first_linear_layer_follows_from_the_image_size(size: int, side: int) -> None:
    network = XrayChestNet(size, classes=3).eval()
    assert network.features(torch.zeros(1, 3, size, size)).shape == (1, 512, side, side)
    assert network(torch.zeros(2, 3, size, size)).shape == (2, 3)


def test_too_small_an_image_is_refused() -> None:
    with pytest.raises(ConfigError, match="24 pixels"):
        XrayChestNet(23, classes=2)
