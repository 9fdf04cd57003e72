"""Data modules with small data sets."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pneumo.data.augmentation import Augmentation
from pneumo.data.datamodule import ChestXrayDataModule

_CACHE = TemporaryDirectory(prefix="pneumo-tests-")  # removed when the tests end
OPTIONS: dict[str, Any] = {
    "classes": ["NORMAL", "PNEUMONIA"],
    "task": "pneumonia",
    "split": "official",
    "val_fraction": 0.1,
    "folds": 5,
    "fold": 0,
    "image_size": 24,
    "crop_pct": 1.0,
    "batch_size": 16,
    "num_workers": 0,
    "seed": 0,
    "cache": False,
    "cache_dir": _CACHE.name,
    "augmentation": Augmentation(rotation=0, shift=0, zoom=0, flip=0, brightness=0, contrast=0),
    "pin_memory": False,
}


def open_data(root: Path, **changes: object) -> ChestXrayDataModule:
    data = ChestXrayDataModule(str(root), **{**OPTIONS, **changes})
    data.prepare_data()
    data.setup()
    return data
