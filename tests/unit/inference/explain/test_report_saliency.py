import pytest
import torch

from pneumo.common.input_format import InputFormat
from pneumo.inference.explain.report_saliency import randomise, rank_correlation
from pneumo.models.classifier import Classifier


def test_all_weights_are_randomised_in_a_copy() -> None:
    classifier = Classifier("timm/vit_tiny_patch16_224", ["NORMAL", "PNEUMONIA"], InputFormat(224))
    with torch.no_grad():
        for weight in classifier.parameters():
            weight.normal_(0, 0.02)  # a trained network has no parameters of constant zeros and ones
    before = {name: value.clone() for name, value in classifier.backbone.named_parameters()}
    state = torch.random.get_rng_state()
    randomised = dict(randomise(classifier.backbone, 0).named_parameters())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not [name for name in before if torch.equal(randomised[name], before[name])]
    assert all(torch.equal(value, before[name]) for name, value in classifier.backbone.named_parameters())
    again = dict(randomise(classifier.backbone, 0).named_parameters())
    assert all(torch.equal(randomised[name], again[name]) for name in randomised)


def test_maps_change_when_all_weights_are_randomised() -> None:
    torch.manual_seed(0)
    classifier = Classifier("pneumo/xraychestnet", ["NORMAL", "PNEUMONIA"], InputFormat(48)).eval()
    images = torch.randint(0, 256, (3, 1, 48, 48), dtype=torch.uint8)
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    correlations = [rank_correlation(classifier, images, "hirescam", "all", seed) for seed in (1, 2, 1)]
    assert correlations[0] == correlations[2] != correlations[1]
    assert max(correlations) < 0.8
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())


def test_the_head_alone_can_be_randomised() -> None:
    torch.manual_seed(0)
    classifier = Classifier("pneumo/xraychestnet", ["NORMAL", "PNEUMONIA"], InputFormat(48)).eval()
    images = torch.randint(0, 256, (2, 1, 48, 48), dtype=torch.uint8)
    with torch.no_grad():
        torch.manual_seed(5)
        classifier.head.reset_parameters()
    # With the seed of its own weights, the randomised head is the same.
    assert rank_correlation(classifier, images, "hirescam", "head", seed=5) == pytest.approx(1)
    assert rank_correlation(classifier, images, "hirescam", "head", seed=6) < 0.99
