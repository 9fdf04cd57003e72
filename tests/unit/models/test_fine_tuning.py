import numpy as np
import pytest
import torch
from torch import nn

from pneumo.errors import ConfigError
from pneumo.models.classifier import Classifier
from pneumo.models.fine_tuning import FineTuning, OneCycle, class_weights, fit_head, parameter_groups


def network() -> nn.Sequential:
    return nn.Sequential(*(nn.Sequential(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2), nn.ReLU()) for _ in range(6)))


def test_early_layers_have_lower_rates_and_groups_contain_all_parameters() -> None:
    backbone, head = network(), nn.Linear(2, 2)
    groups = parameter_groups(backbone, head, 0.5)
    assert [group["lr_scale"] for group in groups] == [0.0625, 0.125, 0.25, 0.5, 1.0]
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for module in (backbone, head) for parameter in module.parameters())
    assert id(backbone.get_parameter("0.0.weight")) in map(id, groups[0]["params"])
    assert id(backbone.get_parameter("5.1.bias")) in map(id, groups[3]["params"])


def test_frozen_parts_have_no_group() -> None:
    backbone = network()
    backbone[:3].requires_grad_(False)
    assert [group["lr_scale"] for group in parameter_groups(backbone, nn.Linear(2, 2), 0.5)] == [0.25, 0.5, 1.0]


def test_optimizer_uses_the_rate_of_each_group() -> None:
    options = FineTuning(warm_up=False, lr_decay=0.1)
    pretrained = Classifier.__new__(Classifier)  # avoids a download of pretrained weights
    nn.Module.__init__(pretrained)
    pretrained.backbone = network()  # type: ignore[assignment] # only its parameters matter
    pretrained.head, pretrained.fine_tuning = nn.Linear(2, 2), options
    pretrained.make_optimizer, pretrained.make_scheduler = lambda p: torch.optim.SGD(p, lr=2.0), None
    optimizer = pretrained.configure_optimizers()
    assert isinstance(optimizer, torch.optim.Optimizer)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == pytest.approx([2e-4, 2e-3, 2e-2, 0.2, 2.0])


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("balance", [True, False])
def test_fitted_head_equals_scikit_learn(classes: int, balance: bool) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    random = np.random.default_rng(0)
    label = random.integers(0, classes, 300) * (random.random(300) > 0.5)
    features = (random.normal(0, 1, (300, 5)) + label[:, None] * np.arange(5) * 0.3 + 7).astype(np.float32)
    head = nn.Linear(5, classes)
    fit_head(head, features, label, balance)
    scaled = StandardScaler().fit_transform(features)
    reference = LogisticRegression(C=0.001, class_weight="balanced" if balance else None).fit(scaled, label)
    with torch.inference_mode():
        found = torch.softmax(head(torch.from_numpy(features)), 1).numpy()
    np.testing.assert_allclose(found, reference.predict_proba(scaled), atol=2e-3)


def test_one_cycle_peaks_at_the_rate_of_each_group() -> None:
    layers = [nn.Linear(1, 1), nn.Linear(1, 1)]
    groups = [{"params": layer.parameters(), "lr": lr} for layer, lr in zip(layers, (0.1, 1.0), strict=True)]
    optimizer = torch.optim.AdamW(groups)
    schedule = OneCycle(0.25)(optimizer, 40)
    rates = []
    for _ in range(40):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    found = np.array(rates)
    np.testing.assert_allclose(found.max(0), [0.1, 1.0])
    np.testing.assert_allclose(found[:, 0] * 10, found[:, 1])
    assert found[:, 1].argmax() == 9
    assert found[0, 1] < 0.05
    assert found[-1, 1] < 1e-3
    assert {group["betas"] for group in optimizer.param_groups} == {(0.9, 0.999)}


def test_class_weights_are_inverse_frequencies() -> None:
    weights = class_weights([0, 1, 1, 1], 2)
    assert weights == pytest.approx([2.0, 2 / 3])


def test_warm_up_out_of_range_is_rejected() -> None:
    with pytest.raises(ConfigError, match="warm_up=0"):
        OneCycle(0)


@pytest.mark.parametrize("warm_up", [0.01, 0.15, 0.5, 0.99])
def test_one_cycle_starts_low_for_any_number_of_steps(warm_up: float) -> None:
    for steps in range(1, 130):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule = OneCycle(warm_up)(optimizer, steps)
        rates = []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        assert rates[0] < 0.05
        assert max(rates) <= 1
        assert steps < 5 or max(rates) > 0.8
