"""The lung locator on the real radiographs of children, which its training on phantoms does not use."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from pneumo.common.input_format import InputFormat
from pneumo.data.index import Radiograph, index_radiographs
from pneumo.data.radiograph import decode
from pneumo.models.lung_crop import LungCrop
from pneumo.training.lung_training import load_locator

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(1800)]
COUNT = 200


def sample() -> tuple[list[Radiograph], torch.Tensor]:
    root = Path(os.environ["PNEUMO_DATA_ROOT"])
    images = [image for image in index_radiographs(root, ("NORMAL", "PNEUMONIA")) if image.split == "train"]
    chosen = [image for label in (0, 1) for image in evenly([each for each in images if each.label == label])]
    pixels = np.stack([decode(root / image.path, InputFormat(224)) for image in chosen])
    return chosen, torch.from_numpy(pixels).reshape(COUNT, 1, 224, 224)


def evenly(images: list[Radiograph]) -> list[Radiograph]:
    return [images[number * len(images) // (COUNT // 2)] for number in range(COUNT // 2)]


def separability(boxes: torch.Tensor, labels: list[int]) -> float:
    """Return the AUROC of the height of boxes, at least 0.5."""
    auroc = float(roc_auc_score(labels, (boxes[:, 3] - boxes[:, 1]).numpy()))
    return max(auroc, 1 - auroc)


def test_lungs_are_located_and_their_height_in_the_crop_hardly_separates_the_classes(tmp_path: Path) -> None:
    crop = LungCrop(192)
    crop.locator = load_locator(tmp_path)
    radiographs, images = sample()
    labels = [radiograph.label for radiograph in radiographs]
    boxes, confidence = crop.locator.locate(images)
    width, height = (boxes[:, 2:] - boxes[:, :2]).unbind(1)
    plausible = (confidence > 0.85) & (width > 0.4) & (width < 0.95) & (height > 0.35)
    middle = (boxes[:, 0] + boxes[:, 2]) / 2
    plausible &= (middle > 0.35) & (middle < 0.65)
    assert plausible.float().mean() >= 0.97
    whole = separability(boxes, labels)
    cropped = separability(crop.locator.locate(crop(images))[0], labels)
    assert whole > 0.75
    assert cropped - 0.5 < 0.5 * (whole - 0.5)
