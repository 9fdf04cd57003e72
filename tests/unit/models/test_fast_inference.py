import pytest
import torch
from torch import Tensor, nn

from pneumo.common.input_format import InputFormat
from pneumo.models.backbones import build_backbone, freeze_module
from pneumo.models.classifier import Classifier
from pneumo.models.fast_inference import FeatureExtractor, InferenceModule, fold_batch_norm
from pneumo.models.hyperparameters import PredictionOptions
from pneumo.models.ood_detector import MultiLevelBackbone, fit_ood_detector


def images(count: int, size: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 1, size, size), dtype=torch.uint8, generator=generator)


def randomize_statistics(network: nn.Module) -> None:
    """Set statistics and parameters of batch normalization to random values, as after training."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                assert tensor is not None
                tensor.data.copy_(torch.rand(tensor.shape, generator=generator) * 0.5 + 0.5)


@pytest.mark.parametrize(
    "architecture",
    [
        "timm/tf_efficientnet_lite0",
        "torchvision/resnext50_32x4d",
        "torchvision/googlenet",
        pytest.param("torchvision/vgg16", marks=pytest.mark.slow),
        "torchvision/densenet121",
        "timm/regnetx_002",
        "pneumo/xraychestnet",
        "timm/vit_tiny_patch16_224",
    ],
)
def test_feature_extractor_computes_the_features_of_the_backbone(architecture: str) -> None:
    torch.manual_seed(0)
    size = 224 if "vit" in architecture else 64
    backbone, _ = build_backbone(architecture, None, None, size, 2)
    randomize_statistics(backbone)
    freeze_module(backbone)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    extractor = FeatureExtractor(backbone, size, torch.device("cpu"), batch_size=4, compiled=False)
    found = torch.cat([torch.from_numpy(block) for block in extractor.run(torch.split(images(6, size), 4), 0, None)])
    expected = backbone(images(6, size))
    torch.testing.assert_close(found, expected, atol=1e-4 * expected.abs().max().item(), rtol=0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


@pytest.mark.parametrize("architecture", ["timm/tf_efficientnet_lite0", "torchvision/resnext50_32x4d"])
def test_all_batch_normalization_after_convolutions_is_folded(architecture: str) -> None:
    backbone, _ = build_backbone(architecture, None, None, 64, 2)
    freeze_module(backbone)
    folded = fold_batch_norm(backbone.network, 64)
    assert not [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]


class Forked(nn.Module):
    """The output of the convolution has two consumers."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.normalization = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, image: Tensor) -> Tensor:
        x = self.convolution(image)
        return torch.cat((x, self.normalization(x)), 1)


class Shared(nn.Module):
    """One convolution is followed by two normalization layers."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.first, self.second = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.second(self.convolution(self.first(self.convolution(image))))
        return features


@pytest.mark.parametrize("kind", [Forked, Shared])
def test_networks_that_cannot_be_folded_are_unchanged(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network = kind()
    randomize_statistics(network)
    freeze_module(network)
    image = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(fold_batch_norm(network, 16)(image), network(image), atol=1e-5, rtol=0)


def test_transform_receives_the_index_of_the_first_image() -> None:
    backbone, _ = build_backbone("pneumo/xraychestnet", None, None, 32, 2)
    freeze_module(backbone)
    extractor = FeatureExtractor(backbone, 32, torch.device("cpu"), batch_size=4, compiled=False)
    calls: list[tuple[int, int]] = []

    def invert(image: Tensor, first: int) -> Tensor:
        calls.append((first, len(image)))
        return 255 - image

    found = torch.cat([torch.from_numpy(block) for block in extractor.run(torch.split(images(6, 32), 4), 8, invert)])
    assert calls == [(8, 4), (12, 2)]
    torch.testing.assert_close(found, backbone(255 - images(6, 32)), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_compiled_feature_extractor_computes_the_same_features() -> None:
    backbone, _ = build_backbone("pneumo/xraychestnet", None, None, 32, 2)
    freeze_module(backbone)
    extractor = FeatureExtractor(backbone, 32, torch.device("cpu"), batch_size=4, compiled=True)
    found = torch.cat([torch.from_numpy(block) for block in extractor.run(torch.split(images(6, 32), 4), 0, None)])
    torch.testing.assert_close(found, backbone(images(6, 32)), atol=1e-4, rtol=1e-4)


IMAGES = torch.randint(0, 256, (5, 1, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("architecture", "classes"),
    [("pneumo/xraychestnet", 2), ("timm/tf_efficientnet_lite0", 3)],
)
def test_inference_module_predicts_like_the_checkpoint(architecture: str, classes: int, flip: bool) -> None:
    names = ["A", "B", "C"][:classes]
    prediction = PredictionOptions(temperature=1.7, flip_test=flip)
    classifier = Classifier(architecture, names, InputFormat(64), prediction=prediction).eval()
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    with torch.inference_mode():
        probability, ood_score = InferenceModule(classifier)(IMAGES)
        expected = classifier.probability(classifier.predict_logits(IMAGES))
    torch.testing.assert_close(probability, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(probability.sum(1), torch.ones(5))
    assert torch.equal(ood_score, torch.zeros(5))  # no OOD detector
    assert all(torch.equal(before[name], tensor) for name, tensor in classifier.state_dict().items())


def test_inference_module_detects_ood_images() -> None:
    classifier = Classifier("pneumo/xraychestnet", ["A", "B"], InputFormat(64)).eval()
    levels = MultiLevelBackbone(classifier.backbone, 64)
    random = torch.Generator().manual_seed(1)
    in_distribution = torch.randint(100, 140, (40, 1, 64, 64), generator=random, dtype=torch.uint8)
    with torch.inference_mode():
        means = levels(in_distribution)[1].double().numpy()
        classifier.ood_detector = fit_ood_detector(means[:20], [(means[20:], 0.01)], levels.channels)
        ood_score = InferenceModule(classifier)(torch.cat([in_distribution[:20], IMAGES]))[1]
    assert (ood_score[:20] <= 1).all()
    assert (ood_score[20:] > 1).all()
