"""Classifiers whose network receives crops to the lungs."""

from pathlib import Path

import pytest
import torch
from helpers.checkpoints import CLASSES, smooth_images, use_random_boxes, write_untrained

from pneumo.common.input_format import InputFormat
from pneumo.errors import ConfigError
from pneumo.models.backbones import build_backbone, trains_on_one_image
from pneumo.models.checkpoint_reader import read_checkpoint
from pneumo.models.classifier import Classifier
from pneumo.models.fine_tuning import FineTuning, TrainingOptions


def test_the_network_receives_normalized_crops() -> None:
    torch.manual_seed(0)
    backbone, _ = build_backbone("pneumo/xraychestnet", None, None, 48, 2, lung_crop=32)
    inputs: list[torch.Tensor] = []
    backbone.network.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0]))
    images = smooth_images(3, 48)
    use_random_boxes(backbone, images)
    assert backbone.crop is not None
    backbone(images)
    torch.testing.assert_close(inputs[0], backbone.normalize(backbone.crop(images)))
    assert inputs[0].shape == (3, 3, 32, 32)
    assert (
        backbone.network_size(48),
        build_backbone("pneumo/xraychestnet", None, None, 48, 2)[0].network_size(48),
    ) == (
        32,
        48,
    )


def test_checkpoints_contain_the_locator(tmp_path: Path) -> None:
    path = write_untrained(tmp_path / "best.ckpt", "pneumo/xraychestnet", 48, lung_crop=32)
    assert read_checkpoint(path)["hyper_parameters"]["lung_crop"] == 32
    first, again = (Classifier.load_from_checkpoint(path).eval() for _ in range(2))
    images = smooth_images(4, 48)
    assert torch.equal(first(images), again(images))
    assert first.backbone.crop is not None
    assert again.backbone.crop is not None
    assert torch.equal(first.backbone.crop.boxes(images), again.backbone.crop.boxes(images))


@pytest.mark.parametrize("fine_tuning", [None, FineTuning(warm_up=False, lr_decay=0.5)])
def test_the_locator_is_not_trained(fine_tuning: FineTuning | None) -> None:
    training = TrainingOptions(fine_tuning=fine_tuning, optimizer=torch.optim.Adam)
    classifier = Classifier("pneumo/xraychestnet", CLASSES, InputFormat(48), training=training, lung_crop=32)
    classifier.fine_tuning = fine_tuning  # otherwise only with pretrained weights
    crop = classifier.train().backbone.crop
    assert crop is not None
    before = {name: value.clone() for name, value in crop.state_dict().items()}
    optimizer = classifier.build_optimizer()
    loss = torch.nn.functional.cross_entropy(classifier(smooth_images(6, 48)), torch.arange(6) % 2)
    torch.autograd.backward(loss)
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in crop.state_dict().items())
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert trained.isdisjoint(map(id, crop.parameters()))


def test_an_error_about_the_size_names_the_setting_of_the_crop() -> None:
    with pytest.raises(ConfigError, match=r"model\.lung_crop=8 is too small.*Set model\.lung_crop=224"):
        build_backbone("pneumo/xraychestnet", None, None, 48, 2, lung_crop=8)
    with pytest.raises(ConfigError, match=r"fails on images of model\.lung_crop=20 "):
        build_backbone("torchvision/alexnet", None, None, 224, 2, lung_crop=20)


@pytest.mark.parametrize(("lung_crop", "expected"), [(32, False), (64, True)])
def test_the_size_of_the_crop_determines_support_of_batches_with_one_image(lung_crop: int, expected: bool) -> None:
    backbone, _ = build_backbone("torchvision/shufflenet_v2_x0_5", None, None, 96, 2, lung_crop=lung_crop)
    assert trains_on_one_image(backbone, 96) is expected
