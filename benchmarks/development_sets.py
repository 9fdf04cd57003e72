"""Measurements of a checkpoint on the development sets of `recipe.py`."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from pneumo.common.terminal import track

if TYPE_CHECKING:
    from pneumo.inference.batch_predictor import BatchPredictor

SETS = ("held-out numbers", "corrupted", "adults, AP", "adults, PA")  # whose AUROCs form the criterion
_SEVERITIES = (3, 5)
_CORRUPTED_IMAGES = 75  # of each class
_Floats = npt.NDArray[np.float64]
_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Data:
    """Images of all runs.

    Attributes:
        train: Folder of the training images of the Kermany data, with one folder per class.
        table: Table of these images with the columns file, label, patient and split.
        adults: Folder with a labels.csv; None: there are no adults.
    """

    train: Path
    table: Path
    adults: Path | None


def measure(checkpoint: Path, data: Data) -> dict[str, float]:
    """Return the AUROC of each development set, the lowest one under corruption, and rates of the adults."""
    import pneumo

    model = pneumo.load_model(checkpoint, "cpu")
    held_out = [row for row in read_rows(data.table) if row["split"] == "test"]
    margin, _ = predict(model, [data.train / row["file"] for row in held_out])
    positive = np.array([row["label"] == "PNEUMONIA" for row in held_out])
    values = {"held-out numbers": auroc(positive, margin), **measure_corrupted(model, data.train, held_out, positive)}
    if data.adults is not None:
        rows = read_rows(data.adults / "labels.csv")
        margin, predicted = predict(model, [data.adults / row["file"] for row in rows])
        positive, view = (np.array([row[name] for row in rows]) for name in ("label", "view"))
        positive = positive == "PNEUMONIA"
        values["adults"] = auroc(positive, margin)
        values |= {f"adults, {name}": auroc(positive[view == name], margin[view == name]) for name in ("AP", "PA")}
        values["sensitivity"] = float(predicted[positive].mean())
        values["specificity"] = float(1 - predicted[~positive].mean())
    return values


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def predict(model: BatchPredictor, paths: Sequence[Path]) -> tuple[_Floats, _Flags]:
    """Return the log odds and whether pneumonia is predicted, (N,) each."""
    found = [each for batch in model.predict_batches(paths) for each in batch.predictions]
    return np.array([each.logit_margin for each in found]), np.array(
        [each.predicted_class == "PNEUMONIA" for each in found]
    )


def measure_corrupted(
    model: BatchPredictor, folder: Path, rows: Sequence[Mapping[str, str]], positive: _Flags
) -> dict[str, float]:
    """Return the mean and the lowest AUROC over all corruptions in two severities, for up to 75 images per class."""
    from pneumo.data.corruptions import CORRUPTIONS, corrupt, reduce_image
    from pneumo.data.grey import square
    from pneumo.data.radiograph import read_radiograph

    generator = np.random.default_rng(0)
    classes = [generator.permutation(np.flatnonzero(positive == level))[:_CORRUPTED_IMAGES] for level in (False, True)]
    chosen = np.sort(np.concatenate(classes))
    conditions = [(name, severity) for name in CORRUPTIONS for severity in _SEVERITIES]
    margin = np.empty((len(chosen), len(conditions)))
    with track("Corrupted images", len(chosen)) as update:
        for row, image in enumerate(chosen.tolist()):
            pixels = reduce_image(read_radiograph(folder / rows[image]["file"])[0])
            changed = [corrupt(pixels, *condition, number=image) for condition in conditions]
            inputs = [square(Image.fromarray(each), model.rules.input_format)[None] for each in changed]
            odds = np.log(model.network.score(np.stack(inputs))[0].astype(np.float64))
            margin[row] = odds[:, 1] - odds[:, 0]
            update(row + 1)
    areas = [auroc(positive[chosen], column) for column in margin.T]
    medium = [area for area, (_, severity) in zip(areas, conditions, strict=True) if severity == _SEVERITIES[0]]
    return {"corrupted": float(np.mean(areas)), "lowest": min(areas), "lowest, severity 3": min(medium)}


def auroc(positive: _Flags, margin: _Floats) -> float:
    """Compute the AUROC of scores, both (N,)."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(positive, margin))
