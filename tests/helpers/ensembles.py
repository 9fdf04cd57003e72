"""Checkpoints of two architectures with different operating points, and the runs that they belong to."""

from pathlib import Path

import numpy as np
import torch
from scipy.special import expit

from helpers.checkpoints import SIZE, write_untrained
from helpers.run_files import write_outputs, write_run
from pneumo.models.checkpoint_reader import read_checkpoint
from pneumo.models.checkpoint_writer import save_checkpoint

ARCHITECTURES = ("pneumo/xraychestnet", "timm/test_resnet")
NAME = "ensemble of 2: pneumo/xraychestnet (1), timm/test_resnet (1)"
_POINTS = ({"threshold": 0.3, "temperature": 0.8, "margin": 0.2}, {"threshold": 0.6, "temperature": 1.7, "margin": 0.5})
_INTERCEPT = -0.4  # of the second member
_TESTED = 40  # images


def write_members(folder: Path, classes: int = 2) -> list[Path]:
    """Write the checkpoints of two runs with 2 or 3 classes; only the first network averages mirror images."""
    members = []
    for index, architecture in enumerate(ARCHITECTURES):
        path = folder / f"member{index}" / "checkpoints" / "best.ckpt"
        write_untrained(path, architecture, SIZE, flip=index == 0, classes=classes)
        content = read_checkpoint(path)
        content["hyper_parameters"] |= _POINTS[index]
        if index and classes == 2:
            content["hyper_parameters"]["intercept"] = _INTERCEPT
        if classes == 2:
            label = torch.arange(_TESTED) % 2
            noise = torch.randn(_TESTED, generator=torch.Generator().manual_seed(index))
            content["internal_test"] = {"margin": noise + label, "label": label, "patient": torch.arange(_TESTED) // 2}
        content |= {"optimizer_states": [torch.ones(1000)], "config": {"data.task": "pneumonia", "seed": index}}
        save_checkpoint(content, path)
        members.append(path)
    return members


def write_runs(folder: Path) -> list[Path]:
    """Write two finished runs with these checkpoints; return their folders."""
    runs = [path.parents[1] for path in write_members(folder)]
    positive = np.arange(624) % 8 >= 3
    for seed, run in enumerate(runs):
        threshold = _POINTS[seed]["threshold"]
        write_run(run, "resnext", "adam", seed, wrong=30, task="pneumonia", threshold=threshold)
        noise = np.random.default_rng(seed).normal(0, 1.5, 624)
        write_outputs(run / "predictions.csv", positive, expit(2 * positive - 1 + noise), threshold=threshold)
        rows = [f"predictions/{index}.jpeg,test,X,none,person{index}" for index in range(624)]
        (run / "splits.csv").write_text("\n".join(["path,split,class,subtype,patient", *rows]))
    return runs
