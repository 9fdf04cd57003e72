"""Smoke tests of the benchmarks; their measurements are not checked."""

import json
import runpy
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import backbone_pass
import frozen_sweep
import harness
import head_training
import input_pipeline
import prediction
import pytest
import scaling
import training_step
from helpers.commands import ROOT

from pneumo.data.phantoms import write_phantoms

SCRIPTS = sorted(
    path.name
    for path in (ROOT / "benchmarks").glob("*.py")
    if path.stem not in ("harness", "plain", "development_sets", "combinations")
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_benchmark_has_help(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "benchmarks" / script), run_name="__main__")
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert f"python benchmarks/{script}" in printed
    assert "--full" in printed


@pytest.mark.slow
def test_all_variants_of_every_benchmark_run(tmp_path: Path) -> None:
    lite0, data = "timm/tf_efficientnet_lite0", tmp_path / "chest_xray"
    write_phantoms(data, seed=0, train=64, val=16, test=32)  # all names in UTF-8: torchvision opens no others
    best, images = prediction.write_checkpoint(tmp_path / "best.ckpt"), sorted(data.glob("test/*/*"))[:2]
    variants: list[Callable[[], float]] = [
        partial(backbone_pass.eager, lite0, data, 4, True),
        partial(backbone_pass.pneumo, lite0, data, 4, False),
        partial(head_training.raw, "sgd", False, 64, 1),
        partial(head_training.raw, "adagrad", True, 64, 1),
        partial(head_training.pneumo, "adam", 64, 1),
        partial(training_step.textbook, 32, 1),
        partial(training_step.raw, "pneumo/xraychestnet", 32, 1),
        partial(training_step.lightning, "pneumo/xraychestnet", 32, 1),
        partial(input_pipeline.loop, data / "train", "PIL", False),
        partial(input_pipeline.loop, data / "train", "torchvision", True),
        partial(input_pipeline.pneumo, data / "train", True),
        partial(frozen_sweep.plain_sweep, data, 32, 1, True),
        partial(frozen_sweep.plain_features, data, 32, 1),
        partial(frozen_sweep.pneumo_sweep, data, 32, 1, None),
        partial(prediction.loop, best, images),
        partial(prediction.pneumo, best, images),
        partial(prediction.command, best, images, 2),
    ]
    for measure in variants:
        assert measure() > 0


def test_scaling_measures_each_step(tmp_path: Path) -> None:
    scaling.write_tree(tmp_path / "data", 200)
    seconds = scaling.measure(tmp_path / "data")
    assert all(value >= 0 for value in seconds.values())
    scaling.draw(tmp_path / "scaling.png", {100: seconds, 200: seconds})
    assert (tmp_path / "scaling.png").stat().st_size > 10_000


def test_a_report_uses_the_first_variant_as_baseline(tmp_path: Path) -> None:
    settings = harness.Settings(full=False, rounds=3, out=tmp_path, root=tmp_path)
    for unit, ratio in (("s", 0.5), ("images/s", 2.0)):
        harness.report("name", settings, unit, {"plain": [9.0, 1.0, 2.0], "pneumo": [4.0]}, "a note")
        content = json.loads((tmp_path / "name.json").read_text())
        assert content["times_as_fast"] == {"plain": 1.0, "pneumo": ratio}
    assert (tmp_path / "name.png").stat().st_size > 1_000
