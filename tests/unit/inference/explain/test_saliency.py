import pytest
import torch
from torch import Tensor, nn

from pneumo.common.input_format import InputFormat
from pneumo.errors import ConfigError
from pneumo.inference.explain.saliency import METHODS, SaliencyMapper
from pneumo.inference.explain.saliency_layers import Layer
from pneumo.models.classifier import Classifier
from pneumo.models.feature_maps import Layout


def images(count: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 1, size, size), dtype=torch.uint8, generator=generator)


def make_classifier(architecture: str = "pneumo/xraychestnet", size: int = 24, **options: object) -> Classifier:
    torch.manual_seed(0)
    settings = {"classes": ["NORMAL", "PNEUMONIA"], "image_size": size, **options}
    return Classifier.from_hyperparameters(architecture=architecture, **settings)


class Spots(nn.Module):
    """A network whose only feature is the pooled brightness, so that it depends on bright pixels only."""

    def __init__(self, bypass: bool = False) -> None:
        super().__init__()
        self.bright, self.bypass = nn.Conv2d(3, 1, 3, padding=1), bypass
        nn.init.constant_(self.bright.weight, 1 / 27)
        assert self.bright.bias is not None
        nn.init.zeros_(self.bright.bias)

    def forward(self, image: Tensor) -> Tensor:
        pooled: Tensor = self.bright(image).relu().mean((2, 3))
        return pooled + image.mean((1, 2, 3))[:, None] if self.bypass else pooled


def spots(bypass: bool = False) -> Classifier:
    """Build a classifier of 32 x 32 pixels that predicts PNEUMONIA for bright images."""
    classifier = make_classifier(size=32)
    classifier.backbone.network, classifier.head = Spots(bypass), nn.Linear(1, len(classifier.classes))
    classifier.head.weight.data = torch.tensor([[-1.0], [1.0]])
    return classifier.eval()


def bright_spot(row: int, column: int) -> Tensor:
    image = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    image[..., row - 2 : row + 3, column - 2 : column + 3] = 255
    return image


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("flip_test", [False, True])
def test_maps_localise_the_evidence(method: str, flip_test: bool) -> None:
    classifier = spots()
    classifier.flip_test = flip_test
    (saliency,) = SaliencyMapper(classifier, method)(bright_spot(10, 22))
    row, column = divmod(int(saliency.argmax()), 32)
    assert abs(row - 10) <= 2
    assert abs(column - 22) <= 2
    assert saliency.dtype == torch.float32
    assert (saliency.min(), saliency.max()) == (0, 1)
    assert saliency[24:, :8].max() < 0.05


def test_evidence_against_a_class_is_not_shown() -> None:
    mapper = SaliencyMapper(spots())
    assert mapper(bright_spot(10, 22), torch.tensor([0])).abs().max() == 0
    assert mapper(bright_spot(10, 22), torch.tensor([1])).max() == 1


def test_the_target_is_the_positive_class_of_two_and_the_predicted_class_of_three() -> None:
    two = make_classifier().eval()
    torch.testing.assert_close(
        SaliencyMapper(two)(images(3, 24)), SaliencyMapper(two)(images(3, 24), torch.tensor([1, 1, 1]))
    )
    three = make_classifier(classes=["a", "b", "c"]).eval()
    with torch.no_grad():
        predicted = three.predict_logits(images(3, 24)).argmax(1)
    torch.testing.assert_close(SaliencyMapper(three)(images(3, 24)), SaliencyMapper(three)(images(3, 24), predicted))


@pytest.mark.parametrize(
    ("architecture", "layer", "layout"),
    [
        ("torchvision/resnext50_32x4d", "layer4.1", Layout("channels first", 2)),
        ("torchvision/googlenet", "inception5a", Layout("channels first", 2)),
        ("torchvision/vgg16", "features", Layout("channels first", 2)),  # at 224 pixels it is features.29
        ("timm/tf_efficientnet_lite0", "blocks.6.0.bn1", Layout("channels first", 2)),
        ("timm/convnext_atto", "stages.3.blocks.0", Layout("channels first", 2)),  # not the shortcut of the last block
        ("torchvision/swin_t", "features.7.0", Layout("channels last", 2)),
        ("timm/vit_tiny_patch16_224", "blocks.9", Layout("tokens", 14, 1)),
    ],
)
def test_maps_of_frozen_and_trainable_backbones_are_equal(architecture: str, layer: str, layout: Layout) -> None:
    size = 224 if "vit" in architecture else 64
    classifier = make_classifier(architecture, size, freeze=True)
    mapper = SaliencyMapper(classifier)
    first = (size / layout.side - 1) / 2
    assert mapper.layer == Layer(layer, layout, first, size - 1 - first)
    maps = mapper(images(2, size))
    assert maps.shape == (2, size, size)
    assert ((maps.amax((1, 2)) == 1) | (maps.amax((1, 2)) == 0)).all()
    classifier.requires_grad_(True)
    torch.testing.assert_close(SaliencyMapper(classifier)(images(2, size)), maps)


@pytest.mark.parametrize("method", METHODS)
def test_maps_are_reproducible_and_the_classifier_is_not_modified(method: str) -> None:
    classifier = make_classifier()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    with torch.inference_mode():
        first = SaliencyMapper(classifier, method)(images(2, 24))
        again = SaliencyMapper(classifier, method)(images(2, 24))
    assert torch.equal(first, again)
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    assert all(value.requires_grad and value.grad is None for value in classifier.parameters())
    assert all(module.training and not module._forward_hooks for module in classifier.backbone.modules())


def test_weights_are_shared_instead_of_copied() -> None:
    classifier = make_classifier()
    addresses = {value.data_ptr() for value in classifier.backbone.state_dict().values()}
    assert {value.data_ptr() for value in SaliencyMapper(classifier).backbone.state_dict().values()} == addresses


def test_mirrored_images_have_mirrored_maps_with_flip_test() -> None:
    mapper = SaliencyMapper(make_classifier(flip_test=True))
    maps = mapper(images(2, 24))
    torch.testing.assert_close(mapper(images(2, 24).flip(3)).flip(2), maps, atol=1e-4, rtol=1e-4)


def test_a_network_without_such_a_layer_is_an_error_that_suggests_occlusion() -> None:
    classifier = spots(bypass=True)
    with pytest.raises(ConfigError, match=r"Spots has none at 32 pixels.*method=occlusion"):
        SaliencyMapper(classifier)
    assert SaliencyMapper(classifier, "occlusion")(bright_spot(10, 22)).max() == 1


def test_an_unknown_method_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"method=lime is unknown: .* hirescam, gradcam, occlusion"):
        SaliencyMapper(spots(), "lime")


@pytest.mark.parametrize("method", METHODS)
def test_maps_of_crops_are_placed_in_the_whole_image(method: str) -> None:
    torch.manual_seed(0)
    classifier = Classifier("pneumo/xraychestnet", ["NORMAL", "PNEUMONIA"], InputFormat(40), lung_crop=32)
    classifier.backbone.network, classifier.head = Spots(), nn.Linear(1, 2)
    classifier.head.weight.data = torch.tensor([[-1.0], [1.0]])
    crop = classifier.eval().backbone.crop
    assert crop is not None
    box = torch.tensor([[0.1, 0.25, 0.6, 0.95]])
    crop.boxes = lambda images: box.expand(len(images), 4)  # type: ignore[method-assign]
    image = torch.zeros(1, 1, 40, 40, dtype=torch.uint8)
    image[..., 28:33, 8:13] = 255
    image[..., 4:9, 30:35] = 255  # outside the box
    (saliency,) = SaliencyMapper(classifier, method)(image)
    row, column = divmod(int(saliency.argmax()), 40)
    assert abs(row - 30) <= 3
    assert abs(column - 10) <= 3
    assert saliency.shape == (40, 40)
    assert saliency[:10].max() == saliency[:, :4].max() == saliency[:, 24:].max() == saliency[38:].max() == 0
