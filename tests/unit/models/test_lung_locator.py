import pytest
import torch

from pneumo.models.lung_locator import LungLocator, find_boxes, standardize


@pytest.fixture
def locator() -> LungLocator:
    torch.manual_seed(0)
    return LungLocator()


@pytest.mark.parametrize("shape", [(64, 64), (224, 224), (97, 301)])
def test_maps_have_one_size_for_all_images(locator: LungLocator, shape: tuple[int, int]) -> None:
    images = torch.randint(0, 256, (3, 1, *shape), dtype=torch.uint8)
    maps = locator(images)
    assert (maps.shape, maps.dtype) == ((3, 64, 64), torch.float32)
    torch.testing.assert_close(locator(images.float()), maps)
    torch.testing.assert_close(locator(images[1:2]), maps[1:2])


def test_the_network_is_constant_in_training(locator: LungLocator) -> None:
    images = torch.rand(4, 1, 80, 80, requires_grad=True) * 255
    before = locator(images)
    parent = torch.nn.Sequential(locator).train()
    with torch.autocast("cpu", torch.bfloat16):
        maps = parent(images)
    assert not maps.requires_grad
    assert not any(parameter.requires_grad for parameter in locator.parameters())
    assert torch.equal(maps, before)


def test_maps_of_a_network_in_half_precision_are_single_precision(locator: LungLocator) -> None:
    images = torch.randint(0, 256, (2, 1, 70, 70), dtype=torch.uint8)
    expected = locator(images)
    maps = locator.to(torch.bfloat16)(images)
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps, expected, rtol=0, atol=0.02)


def test_brightness_and_contrast_do_not_change_standardized_images() -> None:
    images = 255 * torch.rand(2, 64, 64)
    torch.testing.assert_close(standardize(images), standardize(0.5 * images + 60), rtol=0.2, atol=0)
    assert standardize(images).mean().abs() < 1e-5
    assert standardize(torch.full((1, 64, 64), 9.0)).abs().max() < 1e-5


def rectangle(left: float, top: float, right: float, bottom: float) -> torch.Tensor:
    """Draw a map (1, 64, 64) with the given edges in pixels; partly covered pixels are less probable."""

    def cover(low: float, high: float) -> torch.Tensor:
        starts = torch.arange(64.0)
        return (torch.clamp(starts + 1, max=high) - torch.clamp(starts, min=low)).clamp(0, 1)

    return (0.5 + 0.5 * cover(top, bottom)[:, None] * cover(left, right))[None]


@pytest.mark.parametrize("edges", [(10, 20, 50, 60), (10.25, 19.5, 49.75, 60.5), (0, 0, 64, 64), (3, 5, 9, 63.9)])
def test_edges_of_boxes_are_exact_to_a_third_of_a_pixel(edges: tuple[float, ...]) -> None:
    boxes, confidence = find_boxes(rectangle(*edges))
    tail = 0.005 * torch.tensor([edges[2] - edges[0], edges[3] - edges[1]]).repeat(2)
    expected = torch.tensor(edges) + tail * torch.tensor([1.0, 1, -1, -1])
    torch.testing.assert_close(64 * boxes[0], expected, rtol=0, atol=0.33)
    assert confidence > 0.7


def test_edges_of_boxes_move_with_those_of_the_lungs_by_less_than_a_pixel() -> None:
    boxes, _ = find_boxes(torch.cat([rectangle(10 + shift, 20, 50, 60 + shift) for shift in torch.arange(0, 1, 0.1)]))
    steps = 64 * boxes.diff(dim=0)
    assert (steps[:, [0, 3]] > 0).all()
    assert (steps[:, [0, 3]] < 0.4).all()
    assert steps[:, [1, 2]].abs().max() < 0.01


def test_specks_do_not_enlarge_boxes() -> None:
    maps = rectangle(16, 16, 48, 48)
    maps[0, 2, 2] = maps[0, 60, 1] = 1
    boxes, _ = find_boxes(maps)
    torch.testing.assert_close(64 * boxes[0], torch.tensor([16.0, 16, 48, 48]), rtol=0, atol=0.5)


def test_maps_without_lungs_give_the_whole_image_without_confidence() -> None:
    boxes, confidence = find_boxes(torch.stack([torch.full((64, 64), 0.4), torch.zeros(64, 64)]))
    assert boxes.tolist() == [[0, 0, 1, 1]] * 2
    assert confidence.tolist() == [0, 0]
