"""A checkpoint and what the command makes of it, which takes seconds."""

import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.checkpoints import write_untrained

from pneumo import cli
from pneumo.inference.export import parity

SIZE = 32


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the command and give its exit status."""
    monkeypatch.setattr(sys, "argv", ["pneumo", "export", *map(str, arguments)])
    monkeypatch.setattr(parity, "ROUNDS", (1, 1))
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained(tmp_path_factory.mktemp("checkpoint") / "best.ckpt", "pneumo/xraychestnet", SIZE)


@pytest.fixture(scope="session")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command writes, of which no test may change anything."""
    path = tmp_path_factory.mktemp("exported") / "network.onnx"
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        assert run(patch, checkpoint, "--output", path) == 0
    return path


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    return lambda *arguments: run(monkeypatch, *arguments)


@pytest.fixture
def written(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take what is exported already."""
    monkeypatch.setattr(parity, "write_network", lambda *arguments: shutil.copy(exported, arguments[-1]))
