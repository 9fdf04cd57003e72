import pytest
import torch
from torch import Tensor, nn

from pneumo.models.backbones import Backbone
from pneumo.models.classifier import Classifier
from pneumo.models.ood_detector import LevelMeans

IMAGE = torch.randint(0, 256, (3, 1, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def backbone(architecture: str) -> Backbone:
    return Classifier(architecture, ["A", "B"], image_size=64).eval().backbone


def test_each_resolution_gives_the_means_of_its_last_map() -> None:
    network = backbone("pneumo/xraychestnet")
    levels = LevelMeans(network, 64)
    assert levels.channels == [10, 10, 256, 256, 512, 512]  # before and after each pooling
    with torch.inference_mode():
        features, means = levels(IMAGE)
        assert torch.equal(features, network(IMAGE))
        scaled = (IMAGE / 255 - network.mean) / network.std
        first = network.network.features[0](scaled)  # type: ignore[index, union-attr] # its own blocks
        torch.testing.assert_close(means[:, 10:20], first.mean((2, 3)))
        torch.testing.assert_close(means[:, -512:], network.network.features(scaled).mean((2, 3)))  # type: ignore[operator, union-attr]


@pytest.mark.parametrize(
    "architecture", ["torchvision/resnext50_32x4d", "timm/vit_tiny_patch16_224", "timm/mixer_s32_224"]
)
def test_networks_of_all_kinds_have_levels_and_keep_no_hook(architecture: str) -> None:
    size = 64 if "resnet" in architecture else 224
    network = Classifier(architecture, ["A", "B"], image_size=size).eval().backbone
    levels = LevelMeans(network, size)
    with torch.inference_mode():
        means = levels(torch.zeros(2, 1, size, size, dtype=torch.uint8))[1]
    assert means.shape == (2, sum(levels.channels))
    assert len(levels.layouts) >= 2
    assert not any(module._forward_hooks for module in network.modules())


def test_a_network_without_maps_has_its_features() -> None:
    class Flat(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image.flatten(1)[:, :5]

    levels = LevelMeans(Backbone(Flat(), torch.zeros(3), torch.ones(3), 5), 64)
    features, means = levels(IMAGE)
    assert levels.channels == [5]
    assert torch.equal(features, means)


@pytest.mark.parametrize(
    ("architecture", "channels"),
    [
        ("torchvision/swin_t", {96, 192, 384, 768}),  # its maps have their channels last
        ("timm/maxvit_pico_rw_256", {128, 256, 512}),  # folds windows into the batch
    ],
)
def test_means_are_of_channels_however_maps_are_laid_out(architecture: str, channels: set[int]) -> None:
    size = 256 if "maxvit" in architecture else 64
    network = Classifier(architecture, ["A", "B"], image_size=size).eval().backbone
    levels, image = LevelMeans(network, size), torch.randint(0, 256, (2, 1, size, size), dtype=torch.uint8)
    outputs: dict[str, Tensor] = {}
    for name in levels.layouts:
        module = network.network.get_submodule(name)
        module.register_forward_hook(lambda module, arguments, output, name=name: outputs.update({name: output}))
    with torch.inference_mode():
        means = torch.split(levels(image)[1], levels.channels, dim=1)
    assert channels <= set(levels.channels)
    for mean, (name, layout) in zip(means, levels.layouts.items(), strict=True):
        of_channels = outputs[name].mean((1, 2) if layout.kind == "channels last" else (2, 3))
        torch.testing.assert_close(mean, of_channels)
    kinds = {layout.kind for layout in levels.layouts.values()}
    assert ("channels last" in kinds) == (architecture == "torchvision/swin_t")
