import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pneumo.models.lung_crop import LungCrop, place_crops


class FixedMap(nn.Module):
    """Stands in for the locator's network: a rectangle with one probability."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, images: Tensor) -> Tensor:
        logits = torch.full((len(images), 64, 64), -9.0)
        logits[:, 16:48, 8:40] = torch.logit(torch.tensor(self.probability))
        return logits


Factory = Callable[[float], LungCrop]


@pytest.fixture
def make_crop() -> Factory:
    def make(probability: float) -> LungCrop:
        crop = LungCrop(32, margin=0.1)
        crop.locator.network = FixedMap(probability)  # type: ignore[assignment]
        return crop

    return make


def test_a_confident_box_has_a_margin_and_ends_at_the_image(make_crop: Factory) -> None:
    images = torch.zeros(2, 1, 128, 96, dtype=torch.uint8)
    boxes = make_crop(0.99).boxes(images)
    torch.testing.assert_close(boxes[0], torch.tensor([8 - 3.2, 16 - 3.2, 40 + 3.2, 48 + 3.2]) / 64, rtol=0, atol=4e-3)
    crop = make_crop(0.99)
    crop.margin = 0.4
    torch.testing.assert_close(crop.boxes(images)[1, 0], torch.tensor(0.0))


def test_without_confidence_the_crop_is_the_whole_image(make_crop: Factory) -> None:
    images = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8)
    crop = make_crop(0.7)
    assert crop.boxes(images).tolist() == [[0, 0, 1, 1]] * 2
    torch.testing.assert_close(crop(images), images.float(), rtol=0, atol=1e-3)
    areas = [
        (box[2] - box[0]) * (box[3] - box[1]) for box in (make_crop(p).boxes(images)[0] for p in (0.81, 0.83, 0.9))
    ]
    assert 1 > areas[0] > areas[1] > areas[2]


def test_crops_contain_the_pixels_of_their_boxes(make_crop: Factory) -> None:
    rows, columns = torch.arange(64.0)[:, None], torch.arange(64.0)
    images = (rows + 2 * columns)[None, None]
    crop = make_crop(0.99)
    boxes = torch.tensor([[0.25, 0.125, 0.75, 0.625]])
    expected = (rows[8:40] + 2 * columns[16:48])[None, None]
    torch.testing.assert_close(crop.crop(images, boxes), expected)


def test_gradients_reach_only_the_pixels_in_the_box(make_crop: Factory) -> None:
    images = torch.full((1, 1, 64, 64), 100.0, requires_grad=True)
    make_crop(0.99).train()(images).sum().backward()
    assert images.grad is not None
    assert images.grad[0, 0, 30, 20] > 0
    assert images.grad[0, 0, :10].abs().max() == 0


def test_placed_maps_return_to_their_pixels_and_are_zero_elsewhere(make_crop: Factory) -> None:
    box = torch.tensor([[0.2, 0.1, 0.8, 0.9]])
    smooth = torch.linspace(0, 3, 100).sin()[:, None] * torch.linspace(0.2, 2, 120).cos()
    crops = make_crop(0.99).crop(smooth[None, None], box)[:, 0]
    placed = place_crops(crops, box, 100, 120)
    assert placed.shape == (1, 100, 120)
    inside = torch.zeros(100, 120, dtype=torch.bool)
    inside[10:90, 24:96] = True
    assert placed[0][~inside].abs().max() == 0
    torch.testing.assert_close(placed[0][12:88, 26:94], smooth[12:88, 26:94], rtol=0, atol=0.01)


def test_maps_of_whole_images_are_only_resized() -> None:
    maps = torch.rand(3, 16, 16)
    torch.testing.assert_close(place_crops(maps, torch.tensor([[0.0, 0, 1, 1]] * 3), 16, 16), maps)


class Outputs(nn.Module):
    """All outputs of a crop."""

    def __init__(self, crop: LungCrop) -> None:
        super().__init__()
        self.crop = crop

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        boxes, confidence = self.crop.locator.locate(images)
        return boxes, confidence, self.crop(images)


def test_exported_crops_equal_those_of_pytorch_for_any_batch() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    module = Outputs(LungCrop(96)).eval()
    bias = module.crop.locator.network.output.bias
    assert bias is not None
    bias.fill_(3)  # confident, so that the crop depends on the box
    images = torch.randint(0, 256, (5, 1, 100, 131), dtype=torch.uint8)
    program = torch.export.export(module, (images[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},))
    expected = module(images)
    assert (expected[1] > 0.85).all()
    for exported, output in zip(program.module()(images), expected, strict=True):
        torch.testing.assert_close(exported, output)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter
        model = torch.onnx.export(
            program, dynamo=True, input_names=["images"], dynamic_shapes={"images": {0: "batch"}}, verbose=False
        )
    assert model is not None
    session = onnxruntime.InferenceSession(model.model_proto.SerializeToString())
    outputs = session.run(None, {"images": images.numpy()})
    for actual, output, tolerance in zip(outputs, expected, (1e-4, 1e-4, 0.05), strict=True):
        np.testing.assert_allclose(actual, output.numpy(), atol=tolerance)
