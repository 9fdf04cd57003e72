from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from pneumo.data.augmentation import Augmentation
from pneumo.data.datamodule import ChestXrayDataModule

ROOT = Path(__file__).parents[1]
Compose = Callable[..., DictConfig]

OPTIONS: dict[str, Any] = {
    "classes": ["NORMAL", "PNEUMONIA"],
    "split": "official",
    "val_fraction": 0.1,
    "image_size": 24,
    "batch_size": 16,
    "num_workers": 0,
    "seed": 0,
    "cache": False,
    "cache_dir": "",
    "augmentation": Augmentation(rotation=0, shift=0, zoom=0, flip=0, brightness=0, contrast=0),
    "pin_memory": False,
}


def module(root: Path, **changes: object) -> ChestXrayDataModule:
    data = ChestXrayDataModule(str(root), **{**OPTIONS, **changes})
    data.prepare_data()
    data.setup()
    return data
