import pytest
import torch

from pneumo.models.backbones import build_backbone, trains_on_one_image


@pytest.mark.parametrize(
    ("architecture", "size", "expected"),
    [
        ("pneumo/xraychestnet", 32, True),
        ("torchvision/shufflenet_v2_x0_5", 32, False),  # whose last maps have one pixel
        ("torchvision/shufflenet_v2_x0_5", 64, True),
    ],
)
def test_it_is_known_beforehand_whether_a_network_trains_on_one_image(
    architecture: str, size: int, expected: bool
) -> None:
    network = build_backbone(architecture, None, None, size, 2, freeze=False)[0]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    random = torch.get_rng_state()
    assert trains_on_one_image(network, size) is expected
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    if expected:
        network.train()(torch.zeros(1, 1, size, size, dtype=torch.uint8))
    else:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            network.train()(torch.zeros(1, 1, size, size, dtype=torch.uint8))
