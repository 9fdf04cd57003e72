"""Checkpoints of networks that nobody has trained, with all that a tested one holds."""

from pathlib import Path

import export
import torch
from torch import Tensor


def films(count: int, size: int) -> Tensor:
    """Give smooth grey pictures, (count, 1, size, size) uint8."""
    noise = torch.rand(count, 1, 5, 5, generator=torch.Generator().manual_seed(count))
    return (255 * torch.nn.functional.interpolate(noise, size, mode="bilinear")).to(torch.uint8)


def write_untrained(path: Path, architecture: str, size: int, flip: bool = True, classes: int = 2) -> Path:
    """Write a checkpoint whose network has random weights."""
    names = ["NORMAL", "PNEUMONIA"] if classes == 2 else ["NORMAL", "BACTERIAL", "VIRAL"]
    settings = {"crop_pct": 0.875, "temperature": 0.7, "flip_test": flip, "threshold": 0.4, "margin": 0.3}
    export.write_untrained(path, architecture, films(48, size).numpy(), names, **settings)
    return path
