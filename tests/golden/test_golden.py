"""Comparison with values of earlier versions: hashes, numbers, file names, keys and flags must not change."""

import json
from pathlib import Path
from typing import Any

import pytest
from golden.collect import EARLIER, SWEEP, copy_earlier, few_pairs, hash_choices
from golden.compare import collect
from golden.images import write_images
from golden.interface import QUICK, describe_commands, recompute_metrics, run_script
from golden.values import AS_RECORDED, TOLERANCE, differences, load, without_rounding


def check(name: str, found: Any, tolerance: float = TOLERANCE) -> None:  # noqa: ANN401 (any JSON value)
    stored = load(name)
    if name == "runs" and not AS_RECORDED:
        stored, found = without_rounding(stored), without_rounding(found)
    assert not list(differences(stored, found, tolerance, name))


def test_hashes_of_models_optimizers_and_experiments_are_unchanged() -> None:
    check("hashes_few", hash_choices(few_pairs()))


def test_flags_of_commands_are_unchanged() -> None:
    check("commands", describe_commands())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hashes", "settings", "runs", "resumed", "sweep", "outputs"])
def test_values_are_unchanged(name: str) -> None:
    check(name, collect(name))


@pytest.mark.slow
def test_predictions_of_an_earlier_checkpoint_are_unchanged() -> None:
    found, stored = collect("predictions"), load("predictions")
    check("predictions", found, 1e-5)
    for name, columns in stored.items():
        assert not list(differences(columns["probability"], found[name]["probability"], 1e-6, name))


def repeat_sweep(folder: Path, *overrides: str) -> int:
    folders = (f"data.root={write_images(folder / 'images')}", f"paths.output_dir={folder / 'outputs'}")
    return run_script("sweep.py", "-m", *folders, *QUICK, *SWEEP, *overrides)


def results(folder: Path) -> dict[str, tuple[int, bytes]]:
    found = folder.rglob("results.json")
    return {path.parent.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


@pytest.mark.parametrize("run", ["xraychestnet-adam-s0", "xraychestnet-sgd-s0"])
def test_metrics_of_earlier_predictions_are_unchanged(run: str) -> None:
    stored, found = recompute_metrics(EARLIER / "sweep" / run)
    tested = {name: value for name, value in stored.items() if name.startswith("test_")}
    assert not list(differences(tested, found, 1e-6, run))


@pytest.mark.slow
def test_an_earlier_sweep_counts_as_finished(tmp_path: Path) -> None:
    sweep = tmp_path / "outputs" / "sweep" / "old"
    copy_earlier("sweep", sweep)
    before = results(sweep)
    assert len(before) == 2
    assert repeat_sweep(tmp_path) == 0
    assert results(sweep) == before
    assert not list(sweep.rglob("*.ckpt"))  # nothing was trained
    assert {json.loads(path.read_text())["status"] for path in sweep.rglob("status.json")} == {"done"}
    assert repeat_sweep(tmp_path, "optimizer.lr=0.5") == 1  # another configuration is not the finished one
    assert results(sweep) == before


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"a": 1.0, "b": ["x", "y"], "c": [1, 2], "more": 1}, []),
        ({"a": 1.00001, "b": ["x", "new", "y"], "c": [1, 2]}, []),
        ({"a": 1.001, "b": ["x", "y"], "c": [1, 2]}, ["/a"]),
        ({"a": 1.0, "b": ["y"], "c": [1, 2]}, ["/b lacks x"]),
        ({"a": 1.0, "b": ["y", "x"], "c": [1, 2]}, ["/b has another order"]),
        ({"a": 1, "b": ["x", "y"], "c": [1]}, ["/a", "/c has 1 items"]),
        ({"b": ["x", "y"], "c": [1, 3]}, ["/a is missing", "/c/1"]),
    ],
)
def test_differences_are_found(found: dict[str, object], expected: list[str]) -> None:
    lines = list(differences({"a": 1.0, "b": ["x", "y"], "c": [1, 2]}, found, 5e-4))
    assert len(lines) == len(expected)
    assert all(line.startswith(start) for line, start in zip(lines, expected, strict=True))
