"""A network that predicts from the mean grey value of an image, and labelled images for it."""

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.special import expit, softmax

from pneumo.inference.backend import Images, Network, Rules, Scores
from pneumo.metrics.predictions import Predictions

CLASSES = ("NORMAL", "PNEUMONIA")
SUBTYPES = ("NORMAL", "BACTERIAL", "VIRAL")
SIDE = 32  # pixels
THRESHOLD = 0.4


class BrightnessNetwork(Network):
    """Brighter images have a higher probability of the positive classes; very bright ones are out of distribution."""

    batch_size = 16

    def __init__(
        self, classes: tuple[str, ...] = CLASSES, slope: float = 1 / 15, stored: Predictions | None = None
    ) -> None:
        self.rules = Rules("test/brightness", classes, SIDE, 1.0, THRESHOLD, 0.5, has_ood_detector=True)
        self.slope, self.stored = slope, stored

    def score(self, images: Images) -> Scores:
        mean = images.reshape(len(images), -1).mean(axis=1, dtype=np.float64)
        margin = self.slope * (mean - 128)
        if len(self.rules.classes) == 2:
            probability = np.stack([expit(-margin), expit(margin)], axis=1)
        else:
            probability = softmax(np.stack([-margin, margin / 2, np.sin(mean)], axis=1), axis=1)
        return probability.astype(np.float32), (mean / 170).astype(np.float32)

    def internal_test(self) -> Predictions | None:
        return self.stored


def draw_brightness(label: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Draw mean grey values, which are higher for positive images."""
    noise = np.random.default_rng(seed).normal(0, 22, len(label))
    brightness: NDArray[np.int64] = np.clip(118 + 18 * (label > 0) + noise, 20, 235).round().astype(np.int64)
    return brightness


def write_images(folder: Path, names: list[str], brightness: NDArray[np.int64]) -> None:
    """Write images with the given mean grey values; their patterns differ."""
    for index, (name, mean) in enumerate(zip(names, brightness.tolist(), strict=True)):
        pattern = np.random.default_rng(1000 + index).integers(0, 2, (SIDE, SIDE)) * 2 - 1
        pattern[:, 1::2] = -pattern[:, ::2]  # so that the mean is exact
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((mean + 18 * pattern).astype(np.uint8)).save(path)


def write_site(folder: Path, images: int = 120, seed: int = 0, classes: tuple[str, ...] = CLASSES) -> Path:
    """Write images of fewer patients and labels.csv with age, sex and view; return the path of the table."""
    generator = np.random.default_rng(seed)
    label = generator.permutation(np.arange(images) % len(classes))
    names = [f"{index:03}.png" for index in range(images)]
    write_images(folder, names, draw_brightness(label, seed))
    rows = [("file", "label", "patient", "age", "sex", "view")]
    for index, name in enumerate(names):
        patient = f"P{int(generator.integers(0, images // 2)):03}"
        age, sex = str(int(generator.integers(1, 95))), "MF"[int(generator.integers(0, 2))]
        view = "AP" if generator.random() < 0.3 + 0.4 * (label[index] > 0) else "PA"
        rows.append((name, classes[label[index]], patient, age, sex, view))
    path = folder / "labels.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path
