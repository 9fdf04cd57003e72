import pytest
import torch

from pneumo.inference.explain.run_maps import randomise, rank_correlation
from pneumo.models.classifier import Classifier


def test_all_weights_are_drawn_anew_and_the_original_is_left_alone() -> None:
    known = Classifier("timm/vit_tiny_patch16_224", ["NORMAL", "PNEUMONIA"], 224)
    with torch.no_grad():
        for weight in known.parameters():
            weight.normal_(0, 0.02)  # what a fresh network has of zeros and ones, a trained one has no more
    before = {name: value.clone() for name, value in known.backbone.named_parameters()}
    state = torch.random.get_rng_state()
    drawn = dict(randomise(known.backbone, 0).named_parameters())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not [name for name in before if torch.equal(drawn[name], before[name])]
    assert all(torch.equal(value, before[name]) for name, value in known.backbone.named_parameters())
    again = dict(randomise(known.backbone, 0).named_parameters())
    assert all(torch.equal(drawn[name], again[name]) for name in drawn)


def test_maps_of_a_network_without_its_weights_are_others() -> None:
    torch.manual_seed(0)
    known = Classifier("pneumo/xraychestnet", ["NORMAL", "PNEUMONIA"], 48).eval()
    images = torch.randint(0, 256, (3, 1, 48, 48), dtype=torch.uint8)
    before = {name: value.clone() for name, value in known.state_dict().items()}
    found = [rank_correlation(known, images, "hirescam", "all", seed) for seed in (1, 2, 1)]
    assert found[0] == found[2] != found[1]
    assert max(found) < 0.8
    assert all(torch.equal(value, before[name]) for name, value in known.state_dict().items())


def test_the_head_alone_can_forget() -> None:
    torch.manual_seed(0)
    known = Classifier("pneumo/xraychestnet", ["NORMAL", "PNEUMONIA"], 48).eval()
    images = torch.randint(0, 256, (2, 1, 48, 48), dtype=torch.uint8)
    with torch.no_grad():
        torch.manual_seed(5)
        known.head.reset_parameters()
    # Drawn by the seed that it was drawn by before, it is the same head.
    assert rank_correlation(known, images, "hirescam", "head", seed=5) == pytest.approx(1)
    assert rank_correlation(known, images, "hirescam", "head", seed=6) < 0.99
