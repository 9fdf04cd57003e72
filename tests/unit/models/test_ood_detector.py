import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pneumo.common.input_format import InputFormat
from pneumo.models.backbones import Backbone
from pneumo.models.classifier import Classifier
from pneumo.models.ood_detector import MultiLevelBackbone, fit_ood_detector

IMAGE = torch.randint(0, 256, (3, 1, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def backbone(architecture: str) -> Backbone:
    return Classifier(architecture, ["A", "B"], InputFormat(64)).eval().backbone


def test_levels_are_the_last_maps_of_each_resolution() -> None:
    network = backbone("pneumo/xraychestnet")
    levels = MultiLevelBackbone(network, 64)
    assert levels.channels == [10, 10, 256, 256, 512, 512]  # before and after each pooling
    with torch.inference_mode():
        features, means = levels(IMAGE)
        assert torch.equal(features, network(IMAGE))
        scaled = (IMAGE / 255 - network.mean) / network.std
        blocks = network.network.get_submodule("features")
        first = blocks.get_submodule("0")(scaled)
        torch.testing.assert_close(means[:, 10:20], first.mean((2, 3)))
        torch.testing.assert_close(means[:, -512:], blocks(scaled).mean((2, 3)))


@pytest.mark.parametrize(
    "architecture", ["torchvision/resnext50_32x4d", "timm/vit_tiny_patch16_224", "timm/mixer_s32_224"]
)
def test_all_network_types_have_levels_and_no_remaining_hooks(architecture: str) -> None:
    size = 64 if "resnet" in architecture else 224
    network = Classifier(architecture, ["A", "B"], InputFormat(size)).eval().backbone
    levels = MultiLevelBackbone(network, size)
    with torch.inference_mode():
        means = levels(torch.zeros(2, 1, size, size, dtype=torch.uint8))[1]
    assert means.shape == (2, sum(levels.channels))
    assert len(levels.layouts) >= 2
    assert not any(module._forward_hooks for module in network.modules())


def test_networks_without_feature_maps_use_their_features() -> None:
    class Flat(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image.flatten(1)[:, :5]

    levels = MultiLevelBackbone(Backbone(Flat(), torch.zeros(3), torch.ones(3), 5), 64)
    features, means = levels(IMAGE)
    assert levels.channels == [5]
    assert torch.equal(features, means)


@pytest.mark.parametrize(
    ("architecture", "channels"),
    [
        ("torchvision/swin_t", {96, 192, 384, 768}),  # channels-last feature maps
        ("timm/maxvit_pico_rw_256", {128, 256, 512}),  # folds windows into the batch dimension
    ],
)
def test_channel_means_are_independent_of_the_layout(architecture: str, channels: set[int]) -> None:
    size = 256 if "maxvit" in architecture else 64
    network = Classifier(architecture, ["A", "B"], InputFormat(size)).eval().backbone
    levels, image = MultiLevelBackbone(network, size), torch.randint(0, 256, (2, 1, size, size), dtype=torch.uint8)
    outputs: dict[str, Tensor] = {}
    for name in levels.layouts:
        module = network.network.get_submodule(name)
        module.register_forward_hook(lambda module, arguments, output, name=name: outputs.update({name: output}))
    with torch.inference_mode():
        means = torch.split(levels(image)[1], levels.channels, dim=1)
    assert channels <= set(levels.channels)
    for mean, (name, layout) in zip(means, levels.layouts.items(), strict=True):
        channel_means = outputs[name].mean((1, 2) if layout.kind == "channels last" else (2, 3))
        torch.testing.assert_close(mean, channel_means)
    kinds = {layout.kind for layout in levels.layouts.values()}
    assert ("channels last" in kinds) == (architecture == "torchvision/swin_t")


CHANNELS = [8, 32]


def draw(count: int, seed: int, units: float = 1.0) -> np.ndarray:
    """Draw points near a three-dimensional subspace, like the channel means of a network."""
    random = np.random.default_rng(seed)
    space = np.random.default_rng(0).normal(size=(3, sum(CHANNELS)))
    points = random.normal(size=(count, 3)) @ space + 0.1 * random.normal(size=(count, sum(CHANNELS))) + 5
    points[:, : CHANNELS[0]] *= units
    return points


def score(reference: np.ndarray, other: np.ndarray, test: np.ndarray) -> np.ndarray:
    detector = fit_ood_detector(reference, [(other, 0.05)], CHANNELS)
    return detector.score(torch.from_numpy(test).float()).numpy()


def test_ood_images_are_flagged_at_the_allowed_false_positive_rate() -> None:
    reference, other = draw(40, 1), draw(200, 2)
    assert (score(reference, other, other) > 1).mean() == pytest.approx(0.045, abs=0.006)
    assert (score(reference, other, draw(2000, 3)) > 1).mean() < 0.1
    ood = np.random.default_rng(4).normal(5, 3, (200, sum(CHANNELS)))  # equally far away, in other directions
    assert (score(reference, other, ood) > 1).all()


def test_farthest_in_distribution_set_determines_the_limit() -> None:
    reference, other, far = draw(40, 1), draw(200, 2), draw(200, 3) + np.random.default_rng(4).normal(size=40)
    sets = [(other, 0.05)], [(other, 0.05), (far, 0.5)], [(far, 0.5)]
    near, both, farthest = (fit_ood_detector(reference, each, CHANNELS) for each in sets)
    test = torch.from_numpy(far).float()
    assert (near.score(test) > 1).all()
    assert (both.score(test) > 1).float().mean() == pytest.approx(0.5, abs=0.01)
    torch.testing.assert_close(both.score(test), farthest.score(test))


def test_scores_are_invariant_to_the_units_of_a_level() -> None:
    plain, large = (score(draw(60, 1, u), draw(100, 2, u), draw(50, 3, u)) for u in (1.0, 1e3))
    np.testing.assert_allclose(plain, large, rtol=1e-2)


def test_noise_in_constant_channels_hardly_changes_scores() -> None:
    reference, other = draw(60, 1), draw(100, 2)
    for part in (reference, other):
        part[:, 3] = 2.0
    found = fit_ood_detector(reference, [(other, 0.05)], CHANNELS)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in found)
    near = other.copy()
    near[:, 3] += 1e-6
    noisy, constant = (found.score(torch.from_numpy(x).float()).numpy() for x in (near, other))
    np.testing.assert_allclose(noisy, constant, rtol=1e-2)


def test_detector_can_be_fitted_to_few_equal_images() -> None:
    found = fit_ood_detector(np.ones((2, 40)), [(np.ones((1, 40)), 0.01)], CHANNELS)
    assert bool(torch.isfinite(found.score(torch.zeros(1, 40))).all())
