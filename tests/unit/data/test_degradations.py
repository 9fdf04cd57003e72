import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from pneumo.data.degradations import compress, lower_resolution
from pneumo.data.phantoms import draw_radiograph


def radiographs(count: int = 2, size: int = 100) -> Tensor:
    images = []
    for i in range(count):
        image = draw_radiograph(np.random.default_rng(i), np.random.default_rng(i + 9), "none")
        images.append(np.asarray(Image.fromarray(image).resize((size, size + 5)), np.float32))
    return torch.from_numpy(np.stack(images))[:, None]


@pytest.mark.parametrize("quality", [10, 35, 50, 75, 95])
def test_compression_matches_a_jpeg_encoder(quality: int) -> None:
    image = radiographs()
    compressed = compress(image, torch.full((2,), float(quality)))
    for result, original in zip(compressed[:, 0], image[:, 0], strict=True):
        file = io.BytesIO()
        Image.fromarray(original.numpy().astype(np.uint8)).save(file, "JPEG", quality=quality)
        encoded = np.asarray(Image.open(file), np.float32)
        assert np.abs(result.numpy() - encoded).mean() < 0.5  # grey levels; encoders use integer arithmetic
        lost = np.abs(encoded - original.numpy()).mean()
        assert np.abs(result.numpy() - original.numpy()).mean() == pytest.approx(lost, rel=0.05)


def test_lower_quality_loses_more_and_is_set_per_image() -> None:
    image = radiographs(1).expand(3, -1, -1, -1)
    lost = (compress(image, torch.tensor([10.0, 50.0, 100.0])) - image).abs().mean((1, 2, 3))
    assert lost[0] > 2 * lost[1] > 4 * lost[2]
    assert lost[2] < 0.5


@pytest.mark.parametrize("sigma", [1.0, 2.0])  # for a smaller sigma, sampling distorts the Gaussian
def test_blur_matches_a_gaussian_filter(sigma: float) -> None:
    image = radiographs(1)
    blurred = lower_resolution(image, torch.tensor([sigma]), torch.ones(1))
    expected = gaussian_filter(image[0, 0].numpy(), sigma, mode="mirror", truncate=6)
    assert np.abs(blurred[0, 0].numpy() - expected).max() < 1.0
    assert np.abs(blurred[0, 0].numpy() - expected).mean() < 0.05


def test_lower_resolution_keeps_low_and_removes_high_frequencies() -> None:
    x = torch.arange(64)
    waves = torch.stack([torch.cos(2 * torch.pi * x / period).expand(1, 64, 64) for period in (16, 3)])
    coarse, fine = lower_resolution(waves, torch.zeros(2), torch.full((2,), 0.5))
    assert coarse.std() / waves[0].std() > 0.98
    assert fine[..., 16:48].std() / waves[1].std() < 0.05


def test_full_resolution_without_blur_changes_nothing() -> None:
    for image in (radiographs(1), radiographs(1, size=6)):
        same = lower_resolution(image, torch.zeros(1), torch.ones(1))
        torch.testing.assert_close(same, image, atol=1e-3, rtol=0)
