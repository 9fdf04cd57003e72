"""A small data set with the same bytes on every machine: integer arithmetic only, uncompressed files."""

from pathlib import Path

import numpy as np
from PIL import Image

COUNTS = {"train": 40, "val": 8, "test": 16}
_SIZE = 64


def write_images(root: Path) -> Path:
    """Write train/, val/ and test/. File names contain patient and subtype; a bright square represents pneumonia."""
    numbers = np.random.default_rng(0)
    patient = 0
    for split, count in COUNTS.items():
        for i in range(count):
            patient += i % 4 != 3  # every fourth image is the second of its patient
            ill, viral = i % 8 >= 4, i % 16 >= 8
            image = np.kron(numbers.integers(20, 150, (8, 8)), np.ones((8, 8), np.int64))
            image += numbers.integers(0, 30, image.shape)
            row, column = numbers.integers(0, _SIZE - 24, 2)
            image[row : row + 24, column : column + 24] += (70 - 30 * viral) * ill
            kind = "virus" if viral else "bacteria"
            name = f"PNEUMONIA/person{patient}_{kind}_{i}.bmp" if ill else f"NORMAL/IM-{patient:04d}-{i:04d}.bmp"
            path = root / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.astype(np.uint8)).save(path)
    return root


def tested_images(root: Path) -> list[str]:
    """Return the paths of the test images."""
    return sorted(map(str, (root / "test").rglob("*.bmp")))
