"""Losses of an image between detector and file: blur, a lower resolution, compression; in batches, on a device.

Libraries compress image by image, or by encoding files; here a whole batch goes at once, each image by a number
of its own, where it lies.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad

# The luminance table of ITU-T T.81, annex K.1, which encoders scale by the quality.
# fmt: off
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)
# fmt: on


def lower_resolution(image: Tensor, sigma: Tensor, share: Tensor) -> Tensor:
    """Blur images and remove the fine detail that a lower resolution does not hold.

    Both are one product of spectra: a Gaussian, and a smooth step at the lower resolution's highest frequency. Edges
    are mirrored, so that nothing comes in from the opposite side.

    Args:
        image: (N, 1, H, W), float.
        sigma: Of the Gaussian, in pixels, (N,).
        share: Fraction of the resolution that is left, above 0, at most 1, (N,).
    """
    margin = 8
    height, width = image.shape[2:]
    padded = pad(image, (margin,) * 4, mode="reflect" if min(height, width) > margin else "replicate")
    rows, columns = padded.shape[2:]
    y = torch.fft.fftfreq(rows, device=image.device)[:, None]
    x = torch.fft.rfftfreq(columns, device=image.device)[None, :]
    gauss = torch.exp(-2 * (math.pi * sigma.view(-1, 1, 1, 1)) ** 2 * (x**2 + y**2))
    limit = share.view(-1, 1, 1, 1) / 2  # cycles per pixel
    step = torch.sigmoid((limit - torch.maximum(x.abs(), y.abs())) / 0.02)
    kept = gauss * torch.where(limit < 0.5, step, torch.ones_like(step))
    changed: Tensor = torch.fft.irfft2(torch.fft.rfft2(padded) * kept, s=(rows, columns))
    return changed[..., margin : margin + height, margin : margin + width]


def compress(image: Tensor, quality: Tensor) -> Tensor:
    """Apply the losses of JPEG to images: each block of 8 x 8 pixels keeps its rounded cosine coefficients.

    Source: ITU-T T.81; the scale of qualities is that of the Independent JPEG Group's encoder, which Pillow uses too.

    Args:
        image: (N, 1, H, W), 0 to 255, float.
        quality: From 1 to 100, (N,).
    """
    height, width = image.shape[2:]
    whole = pad(image, (0, -width % 8, 0, -height % 8), mode="replicate") - 128
    blocks = whole.unfold(2, 8, 8).unfold(3, 8, 8)  # (N, 1, H / 8, W / 8, 8, 8)
    basis = _cosines(image.device)
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)[:, None, None]
    luminance = torch.tensor(_LUMINANCE, dtype=scale.dtype, device=scale.device)
    table = ((luminance * scale + 50) / 100).floor().clamp(1, 255)[:, None, None, None]
    kept = ((basis @ blocks @ basis.T) / table).round() * table
    restored = (basis.T @ kept @ basis).transpose(3, 4).reshape(whole.shape)
    return (restored[..., :height, :width] + 128).round().clamp(0, 255)


@lru_cache(maxsize=4)
def _cosines(device: torch.device) -> Tensor:
    """Return the orthonormal basis of the discrete cosine transform, (8, 8)."""
    k, n = torch.arange(8)[:, None], torch.arange(8)[None, :]
    basis = torch.cos(math.pi * (2 * n + 1) * k / 16) / 2
    basis[0] /= math.sqrt(2)
    return basis.to(device)
