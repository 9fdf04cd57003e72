"""Fixtures: a small checkpoint and its exports."""

import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from helpers.checkpoints import write_untrained

from pneumo import cli
from pneumo.inference.export import parity
from pneumo.inference.onnx_backend import SHA256, add_checksum

SIZE = 32


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run `pneumo export` and return its exit status."""
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
    """Return the ONNX file that the command writes; tests must not modify it."""
    path = tmp_path_factory.mktemp("exported") / "network.onnx"
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        assert run(patch, checkpoint, "--output", path) == 0
    return path


@pytest.fixture(scope="session")
def two_outputs(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same network as earlier versions exported it: without the output `ood_score`."""
    model, path = onnx.load(exported), tmp_path_factory.mktemp("two_outputs") / "network.onnx"
    assert model.graph.node.pop().output == [model.graph.output.pop().name] == ["ood_score"]
    onnx.helper.set_model_props(model, {prop.key: prop.value for prop in model.metadata_props if prop.key != SHA256})
    path.write_bytes(add_checksum(model.SerializeToString()))
    return path


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    return lambda *arguments: run(monkeypatch, *arguments)


@pytest.fixture
def written(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy the exported file instead of exporting again."""
    monkeypatch.setattr(parity, "write_network", lambda *arguments: shutil.copy(exported, arguments[-1]))
