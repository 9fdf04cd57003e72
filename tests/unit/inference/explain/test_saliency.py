import pytest
import torch
from torch import Tensor, nn

from pneumo.errors import ConfigError
from pneumo.inference.explain.saliency import METHODS, Layer, SaliencyMapper
from pneumo.models.classifier import Classifier
from pneumo.models.feature_maps import Layout


def images(count: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 1, size, size), dtype=torch.uint8, generator=generator)


def classifier(architecture: str = "pneumo/xraychestnet", size: int = 24, **options: object) -> Classifier:
    torch.manual_seed(0)
    settings = {"classes": ["NORMAL", "PNEUMONIA"], "image_size": size, **options}
    return Classifier.from_hyperparameters(architecture=architecture, **settings)


class Spots(nn.Module):
    """Pools what is bright, so that its only feature comes from where that is."""

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
    """A classifier of 32 pixels that answers PNEUMONIA where something is bright."""
    known = classifier(size=32)
    known.backbone.network, known.head = Spots(bypass), nn.Linear(1, len(known.classes))
    known.head.weight.data = torch.tensor([[-1.0], [1.0]])
    return known.eval()


def bright(row: int, column: int) -> Tensor:
    film = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    film[..., row - 2 : row + 3, column - 2 : column + 3] = 255
    return film


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("flip_test", [False, True])
def test_a_map_shows_where_the_answer_comes_from(method: str, flip_test: bool) -> None:
    known = spots()
    known.flip_test = flip_test
    (found,) = SaliencyMapper(known, method)(bright(10, 22))
    row, column = divmod(int(found.argmax()), 32)
    assert abs(row - 10) <= 2
    assert abs(column - 22) <= 2
    assert found.dtype == torch.float32
    assert (found.min(), found.max()) == (0, 1)
    assert found[24:, :8].max() < 0.05


def test_what_speaks_against_a_class_is_not_shown() -> None:
    explain = SaliencyMapper(spots())
    assert explain(bright(10, 22), torch.tensor([0])).abs().max() == 0
    assert explain(bright(10, 22), torch.tensor([1])).max() == 1


def test_two_classes_are_explained_by_the_positive_one_and_three_by_the_predicted() -> None:
    two = classifier().eval()
    torch.testing.assert_close(
        SaliencyMapper(two)(images(3, 24)), SaliencyMapper(two)(images(3, 24), torch.tensor([1, 1, 1]))
    )
    three = classifier(classes=["a", "b", "c"]).eval()
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
        ("timm/convnext_atto", "stages.3.blocks.0", Layout("channels first", 2)),  # not the last one's shortcut
        ("torchvision/swin_t", "features.7.0", Layout("channels last", 2)),
        ("timm/vit_tiny_patch16_224", "blocks.9", Layout("tokens", 14, 1)),
    ],
)
def test_any_backbone_is_explained_frozen_or_not(architecture: str, layer: str, layout: Layout) -> None:
    size = 224 if "vit" in architecture else 64
    known = classifier(architecture, size, freeze=True)
    explain = SaliencyMapper(known)
    first = (size / layout.side - 1) / 2
    assert explain.layer == Layer(layer, layout, first, size - 1 - first)
    found = explain(images(2, size))
    assert found.shape == (2, size, size)
    assert ((found.amax((1, 2)) == 1) | (found.amax((1, 2)) == 0)).all()
    known.requires_grad_(True)
    torch.testing.assert_close(SaliencyMapper(known)(images(2, size)), found)


@pytest.mark.parametrize("method", METHODS)
def test_the_classifier_stays_as_it_is_and_maps_repeat_themselves(method: str) -> None:
    known = classifier()
    before = {name: value.clone() for name, value in known.state_dict().items()}
    with torch.inference_mode():
        first = SaliencyMapper(known, method)(images(2, 24))
        again = SaliencyMapper(known, method)(images(2, 24))
    assert torch.equal(first, again)
    assert all(torch.equal(value, before[name]) for name, value in known.state_dict().items())
    assert all(value.requires_grad and value.grad is None for value in known.parameters())
    assert all(module.training and not module._forward_hooks for module in known.backbone.modules())


def test_the_weights_are_shared_not_copied() -> None:
    known = classifier()
    theirs = {value.data_ptr() for value in known.backbone.state_dict().values()}
    assert {value.data_ptr() for value in SaliencyMapper(known).backbone.state_dict().values()} == theirs


def test_mirrored_films_have_mirrored_maps_where_the_answer_is_the_mean_of_both() -> None:
    explain = SaliencyMapper(classifier(flip_test=True))
    found = explain(images(2, 24))
    torch.testing.assert_close(explain(images(2, 24).flip(3)).flip(2), found, atol=1e-4, rtol=1e-4)


def test_a_network_without_such_a_layer_says_what_to_take() -> None:
    known = spots(bypass=True)
    with pytest.raises(ConfigError, match=r"Spots at 32 pixels.*method=occlusion"):
        SaliencyMapper(known)
    assert SaliencyMapper(known, "occlusion")(bright(10, 22)).max() == 1


def test_an_unknown_method_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"method=lime: .* hirescam, gradcam, occlusion"):
        SaliencyMapper(spots(), "lime")
