import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from pneumo.callbacks import AveragedWeights


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    return AveragedModel(network, use_buffers=True, **AveragedWeights(decay)._kwargs)


def test_what_does_not_move_keeps_its_bits() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(100, 100), nn.BatchNorm1d(100))
    network[1].running_mean = torch.randn(100)
    average = averaged(network, 0.997)
    for _ in range(500):
        average.update_parameters(network)
    for name, value in average.module.state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), name


@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_it_is_the_average_of_the_last_steps_however_few_there_are(decay: float) -> None:
    network = nn.Linear(1, 1, bias=False)
    average = averaged(network, decay)
    expected = None
    for step in range(60):
        value = float(step**2 % 7)
        nn.init.constant_(network.weight, value)
        average.update_parameters(network)
        kept = min(decay, (1 + step) / (10 + step))
        expected = value if expected is None else kept * expected + (1 - kept) * value
    assert expected is not None
    assert average.module.weight.item() == pytest.approx(expected, rel=1e-5)
