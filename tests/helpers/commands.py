"""Runners for pneumo's scripts and commands, in this or in a separate process."""

import json
import logging
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from pneumo import cli

ROOT = Path(__file__).parents[2]
Compose = Callable[..., DictConfig]
Script = Callable[..., int]
Sweep = Callable[..., int]
Run = Callable[..., tuple[int, str, str]]


def command_runner(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a `pneumo` command in this process and returns its exit status, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pneumo", name, *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capsys.readouterr()

    return run


@contextmanager
def script_runner() -> Iterator[Script]:
    """Yield a function that runs train.py or sweep.py in this process; restore global state on exit."""

    def run(name: str, *arguments: str) -> int:
        patch.setattr(sys, "argv", [name, *arguments])
        try:
            runpy.run_path(name, run_name="__main__")
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 1
        return 0

    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield run
    for handler in set(root.handlers).difference(handlers):  # added by Hydra
        handler.close()
    root.handlers = handlers
    root.setLevel(level)
    logging.getLogger("pneumo").setLevel(logging.NOTSET)
    HydraConfig.instance().cfg = None


def sweep_folder(tmp_path: Path, name: str = "study") -> Path:
    """Return the folder of a sweep with the default output folder."""
    return tmp_path / "outputs" / "sweep" / name


def results_files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return the modification time and content of each results.json in a sweep's folder, by run."""
    results = folder.glob("*/results.json")
    return {path.parent.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in results}


def train_with(constant: str, value: float) -> list[str]:
    """Return the command for train.py with a changed constant, such as `pneumo.common.array_cache.FLUSH_INTERVAL`."""
    code = f"import runpy, sys, {constant.rpartition('.')[0]}; {constant} = {value}; sys.argv[:] = sys.argv[1:]"
    return [sys.executable, "-c", f"{code}; runpy.run_path('train.py', run_name='__main__')", "train.py"]


def sweep(outputs: Path, root: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run sweep.py in a separate process on small images.

    Each job uses one thread, since the number of threads affects the last bits of sums.

    Args:
        outputs: Output folder.
        root: Data folder.
        arguments: Further overrides.
        variables: Environment variables.
    """
    quick = ("data.image_size=32", "data.batch_size=16", "data.num_workers=0", "trainer=cpu", "epochs=1")
    command = [sys.executable, "sweep.py", "-m", *quick, "model.weights=null", "launcher.threads=1", *arguments]
    # Relative paths test that jobs resolve them against the user's working folder.
    command += [f"data.root={os.path.relpath(root, ROOT)}", f"paths.output_dir={os.path.relpath(outputs, ROOT)}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **variables})


def read_metrics(sweep: Path) -> dict[str, dict[str, object]]:
    """Return the results of a sweep's runs by name, without run times and memory."""
    cost = ("seconds", "samples_per_second", "peak_memory_bytes")
    runs = {path.parent.name: json.loads(path.read_text()) for path in sweep.glob("*/results.json")}
    return {
        name: {key: value for key, value in results.items() if not key.endswith(cost)} for name, results in runs.items()
    }
