import pytest
import torch
from torch import nn

from pneumo.errors import ConfigError
from pneumo.models.backbones import build_backbone, find_head, remove_auxiliary_heads, trains_on_one_image
from pneumo.models.registry import create


@pytest.mark.parametrize(
    ("architecture", "features", "total"),
    [
        ("pneumo/xraychestnet", 50, 18_511_524),
        ("torchvision/vgg16", 4096, 134_268_738),
        ("torchvision/resnext50_32x4d", 2048, None),
        ("torchvision/googlenet", 1024, None),
        ("torchvision/mobilenet_v3_small", 1024, None),
        ("torchvision/vit_b_16", 768, None),
        ("timm/tf_efficientnet_lite0", 1280, None),
        ("timm/convnext_atto", 320, None),
        ("timm/vit_tiny_patch16_224", 192, None),
    ],
)
def test_head_of_any_architecture_is_replaced(architecture: str, features: int, total: int | None) -> None:
    backbone, head = build_backbone(architecture, None, None, image_size=224, classes=2)
    assert (head.in_features, head.out_features) == (features, 2)
    if total is not None:
        assert sum(p.numel() for module in (backbone, head) for p in module.parameters()) == total
    backbone.train()
    image = torch.randint(0, 256, (2, 1, 224, 224), dtype=torch.uint8)
    assert backbone(image).shape == (2, features)


def test_auxiliary_heads_are_removed() -> None:
    network = create("torchvision/googlenet", 224).network
    assert isinstance(network.aux1, nn.Module)
    remove_auxiliary_heads(network)
    assert not [name for name, _ in network.named_parameters() if "aux" in name]
    network.train()
    assert isinstance(network(torch.zeros(2, 3, 64, 64)), torch.Tensor)


def test_images_are_normalized_with_the_statistics_of_the_source() -> None:
    backbone, _ = build_backbone("torchvision/resnet18", None, None, image_size=32, classes=2)
    inputs: list[torch.Tensor] = []
    backbone.network.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0]))
    backbone(torch.full((2, 1, 32, 32), 255, dtype=torch.uint8))
    white = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(inputs[0], white.view(1, 3, 1, 1).expand(2, 3, 32, 32))


def test_head_can_be_selected_by_path() -> None:
    network = create("torchvision/alexnet", 64).network
    assert find_head(network, "alexnet", None) == find_head(network, "alexnet", "classifier.6") == "classifier.6"
    with pytest.raises(ConfigError, match=r"head_path=features\.0.*classifier\.6"):
        find_head(network, "alexnet", "features.0")
    with pytest.raises(ConfigError, match="is not its last"):
        build_backbone("torchvision/alexnet", None, "classifier.4", image_size=64, classes=2)


@pytest.mark.parametrize(
    ("architecture", "size", "message"),
    [
        ("resnet18", 224, "is not SOURCE/NAME"),
        ("keras/resnet18", 224, "is not SOURCE/NAME"),
        ("torchvision/resnet19", 224, "torchvision/resnet18"),
        ("timm/resnet19", 224, "timm/resnet18"),
        ("pneumo/xraychestnet", 20, "data.image_size=20 is too small"),
        ("timm/vit_tiny_patch16_224", 64, "data.image_size=64"),
        ("torchvision/squeezenet1_0", 224, "Use another architecture"),
    ],
)
def test_errors_of_unknown_or_unsupported_architectures(architecture: str, size: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_backbone(architecture, None, None, image_size=size, classes=2)


@pytest.mark.parametrize(
    ("architecture", "size", "expected"),
    [
        ("pneumo/xraychestnet", 32, True),
        ("torchvision/shufflenet_v2_x0_5", 32, False),  # its last feature maps have one pixel
        ("torchvision/shufflenet_v2_x0_5", 64, True),
    ],
)
def test_support_of_batches_with_one_image_is_detected(architecture: str, size: int, expected: bool) -> None:
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
