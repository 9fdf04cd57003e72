"""Batched degradations of images: noise, lower resolution and JPEG compression, on the device of the batch.

Libraries apply JPEG compression image by image, or encode files.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad

_FIELD_SIDE = 1024  # pixels of the field of noise, larger than most images, so that windows rarely repeat
# Luminance quantization table of ITU-T T.81, annex K.1; encoders scale it by the quality.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip


def add_noise(image: Tensor, deviation: Tensor, quantum: Tensor, corner: Tensor) -> Tensor:
    """Add white noise to images (N, 1, H, W) with grey values from 0 to 255.

    The noise of an image is a window of one fixed field of standard normal numbers. It therefore depends neither on
    the batch nor on the device, and no numbers are drawn per pixel.

    Args:
        image: Images, (N, 1, H, W).
        deviation: Standard deviations in grey values, (N,).
        quantum: Whether the variance is proportional to the grey value, as that of X-ray quanta, (N,); if not, it is
            the same in all pixels, as that of electronic noise.
        corner: Upper left corners of the windows as fractions of the field's sides, from 0 to 1, (N, 2).
    """
    field = _noise_field(image.device)
    start = (corner * _FIELD_SIDE).long()
    rows, columns = (
        (start[:, i, None] + torch.arange(side, device=image.device)) % _FIELD_SIDE
        for i, side in enumerate(image.shape[2:])
    )
    noise = field[rows[:, :, None], columns[:, None, :]][:, None]
    signal = torch.where(quantum.view(-1, 1, 1, 1), (image.clamp(0, 255) / 255).sqrt(), 1.0)
    return image + deviation.view(-1, 1, 1, 1) * signal * noise


@lru_cache(maxsize=4)
def _noise_field(device: torch.device) -> Tensor:
    """Return standard normal numbers, (_FIELD_SIDE, _FIELD_SIDE), the same in every process."""
    return torch.randn(_FIELD_SIDE, _FIELD_SIDE, generator=torch.Generator().manual_seed(0)).to(device)


def lower_resolution(image: Tensor, sigma: Tensor, fraction: Tensor) -> Tensor:
    """Blur images (N, 1, H, W) and remove the frequencies that a lower resolution cannot represent.

    The spectrum is multiplied by a Gaussian and by a smooth step. The images are padded by reflection, because the
    discrete Fourier transform is periodic.

    Args:
        image: Images, (N, 1, H, W).
        sigma: Standard deviations of the Gaussian in pixels, (N,).
        fraction: Lower resolutions as fractions of the original one, (N,). They set the position of the step.
    """
    margin = 8
    height, width = image.shape[2:]
    padded = pad(image, (margin,) * 4, mode="reflect" if min(height, width) > margin else "replicate")
    rows, columns = padded.shape[2:]
    y = torch.fft.fftfreq(rows, device=image.device)[:, None]
    x = torch.fft.rfftfreq(columns, device=image.device)[None, :]
    gauss = torch.exp(-2 * (math.pi * sigma.view(-1, 1, 1, 1)) ** 2 * (x**2 + y**2))
    limit = fraction.view(-1, 1, 1, 1) / 2  # cycles per pixel
    step = torch.sigmoid((limit - torch.maximum(x.abs(), y.abs())) / 0.02)
    transfer = gauss * torch.where(limit < 0.5, step, torch.ones_like(step))
    changed: Tensor = torch.fft.irfft2(torch.fft.rfft2(padded) * transfer, s=(rows, columns))
    return changed[..., margin : margin + height, margin : margin + width]


def compress(image: Tensor, quality: Tensor) -> Tensor:
    """Apply JPEG quantization to images (N, 1, H, W) with values from 0 to 255.

    The discrete cosine coefficients of each block of 8 x 8 pixels are quantized. `quality`, (N,), ranges from 1 to 100
    on the scale of the Independent JPEG Group's encoder, which Pillow also uses. Source: ITU-T T.81.
    """
    height, width = image.shape[2:]
    whole = pad(image, (0, -width % 8, 0, -height % 8), mode="replicate") - 128
    blocks = whole.unfold(2, 8, 8).unfold(3, 8, 8)  # (N, 1, H / 8, W / 8, 8, 8)
    basis = _cosines(image.device)
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)[:, None, None]
    luminance = torch.tensor(_LUMINANCE, dtype=scale.dtype, device=scale.device)
    table = ((luminance * scale + 50) / 100).floor().clamp(1, 255)[:, None, None, None]
    quantized = ((basis @ blocks @ basis.T) / table).round() * table
    restored = (basis.T @ quantized @ basis).transpose(3, 4).reshape(whole.shape)
    return (restored[..., :height, :width] + 128).round().clamp(0, 255)


@lru_cache(maxsize=4)
def _cosines(device: torch.device) -> Tensor:
    """Return the orthonormal basis of the discrete cosine transform, (8, 8)."""
    k, n = torch.arange(8)[:, None], torch.arange(8)[None, :]
    basis = torch.cos(math.pi * (2 * n + 1) * k / 16) / 2
    basis[0] /= math.sqrt(2)
    return basis.to(device)
