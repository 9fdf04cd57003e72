import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from pneumo import cli
from pneumo.common.array_cache import Array, Recipe, find_or_build
from pneumo.data.augmentation import Augmentation
from pneumo.data.datamodule import ChestXrayDataModule

ROOT = Path(__file__).parents[2]
Compose = Callable[..., DictConfig]
Sweep = Callable[..., int]
Run = Callable[..., tuple[int, str, str]]

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


def module(root: Path, **changes: object) -> ChestXrayDataModule:
    data = ChestXrayDataModule(str(root), **{**OPTIONS, **changes})
    data.prepare_data()
    data.setup()
    return data


def command_runner(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Give what runs one of pneumo's commands in this process, and tells its status and what it has printed."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pneumo", name, *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capsys.readouterr()

    return run


class OwnSGD(torch.optim.SGD):
    """An optimizer of somebody's own."""


def place(tmp_path: Path, name: str = "study") -> Path:
    return tmp_path / "outputs" / "sweep" / name


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    found = folder.glob("*/results.json")
    return {path.parent.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def train_with(constant: str, value: float) -> list[str]:
    """Return the command train.py with one constant changed, such as `pneumo.common.array_cache.SAFE_EVERY`."""
    code = f"import runpy, sys, {constant.rpartition('.')[0]}; {constant} = {value}; sys.argv[:] = sys.argv[1:]"
    return [sys.executable, "-c", f"{code}; runpy.run_path('train.py', run_name='__main__')", "train.py"]


def sweep(place: Path, root: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run sweep.py in a process of its own on small images, with one thread a job.

    How a sum is divided among threads shows in its last bits.

    Args:
        place: For outputs.
        root: The data's.
        arguments: Further overrides.
        variables: Of the environment.
    """
    quick = ("data.image_size=32", "data.batch_size=16", "data.num_workers=0", "trainer=cpu", "epochs=1")
    command = [sys.executable, "sweep.py", "-m", *quick, "model.weights=null", "launcher.threads=1", *arguments]
    # Relative paths are the user's, whatever the folder that a job runs in.
    command += [f"data.root={os.path.relpath(root, ROOT)}", f"paths.output_dir={os.path.relpath(place, ROOT)}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **variables})


def metrics(sweep: Path) -> dict[str, dict[str, object]]:
    """Give what the runs of a sweep have achieved, by their names, without what that has cost."""
    cost = ("seconds", "samples_per_second", "peak_memory_bytes")
    found = {path.parent.name: json.loads(path.read_text()) for path in sweep.glob("*/results.json")}
    return {
        name: {key: value for key, value in results.items() if not key.endswith(cost)}
        for name, results in found.items()
    }


# For processes that ask for one cache at once: what they import must be importable by name.
RECIPE = Recipe("features", {"weights": "abc"}, (100, 3), "float32", "Computing")
WHOLE = np.random.default_rng(0).random((100, 3), np.float32)


def blocks(start: int) -> Iterator[Array]:
    for i in range(start, 100, 7):
        yield WHOLE[i : i + 7]


def slow_blocks(start: int) -> Iterator[Array]:
    for block in blocks(start):
        time.sleep(0.1)
        yield block


def ask(folder: Path, number: int, together: Barrier) -> None:
    logging.basicConfig(level=logging.INFO, filename=folder / f"{number}.log")
    built = []

    def counted(start: int) -> Iterator[Array]:
        built.append(start)
        return slow_blocks(start)

    together.wait()  # imports take seconds, and on a busy machine more than building does
    array = find_or_build(folder / "cache", RECIPE, counted)
    np.testing.assert_array_equal(array, WHOLE)
    (folder / f"{number}.done").write_text("built" if built else "waited")
