import numpy as np
import pytest
import torch
from PIL import Image

from pneumo.models.resampling import resample


@pytest.mark.parametrize("size", [(64, 64), (31, 200), (97, 130)])
@pytest.mark.parametrize("box", [(0.0, 0.0, 1.0, 1.0), (0.1, 0.2, 0.7, 0.9), (0.0, 0.43, 0.99, 1.0)])
def test_results_equal_those_of_pillow(size: tuple[int, int], box: tuple[float, float, float, float]) -> None:
    image = torch.rand(97, 130, generator=torch.Generator().manual_seed(0))
    left, top, right, bottom = box
    edges = (130 * left, 97 * top, 130 * right, 97 * bottom)
    expected = Image.fromarray(image.numpy()).resize(size[::-1], Image.Resampling.BILINEAR, box=edges)
    resampled = resample(image[None], *size, torch.tensor([box]))
    np.testing.assert_allclose(resampled[0].numpy(), np.asarray(expected), atol=2e-4)


def test_a_box_beyond_the_image_repeats_its_border() -> None:
    images = torch.tensor([[[1.0, 3.0], [5.0, 7.0]]])
    resampled = resample(images, 1, 4, torch.tensor([[-1.0, 0.0, 1.0, 0.5]]))
    assert resampled.tolist() == [[[1.0, 1.0, 1.0, 3.0]]]


def test_each_image_has_its_own_box() -> None:
    images = torch.rand(2, 8, 8)
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]])
    torch.testing.assert_close(
        resample(images, 4, 4, boxes), torch.stack([images[0, :4, :4], images[1, 4:, 4:]]), rtol=0, atol=1e-6
    )
