import json
import os
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import Run, command_runner
from helpers.ensembles import write_runs

from pneumo.errors import ConfigError
from pneumo.inference.ensemble_writer import write_ensemble
from pneumo.inference.evaluate.reference import find_reference
from pneumo.inference.predictor import load_model, open_network
from pneumo.models.checkpoint_reader import read_checkpoint
from pneumo.models.checkpoint_writer import save_checkpoint


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return write_runs(tmp_path / "sweep")


@pytest.fixture
def combine(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `pneumo ensemble`; return its status, output and errors."""
    run = command_runner("ensemble", monkeypatch, capsys)
    return lambda *arguments: run(*arguments)


def test_the_file_has_the_threshold_of_the_reported_ensemble(runs: list[Path], tmp_path: Path, combine: Run) -> None:
    path = tmp_path / "new" / "ensemble.ckpt"
    status, output, errors = combine(runs[0].parent, "--checkpoint", path)
    assert (status, errors) == (0, "")
    assert f"Wrote {path}." in " ".join(output.split())
    reported = json.loads((runs[0].parent / "ensemble" / "ensemble.json").read_text())
    assert open_network(path).rules.threshold == reported["threshold"] == np.float32(0.45)
    content = read_checkpoint(path)
    assert content["config"] == {"data.task": "pneumonia"}
    assert {key for member in content["members"] for key in member} == {
        *("state_dict", "hyper_parameters", "outliers", "internal_test")
    }


def test_without_the_option_no_checkpoint_is_needed(runs: list[Path], tmp_path: Path, combine: Run) -> None:
    assert combine(*runs, "--checkpoint", tmp_path / "a.ckpt", "--output", tmp_path / "reports")[0] == 0
    with_option = (tmp_path / "reports" / "ensemble" / "ensemble.json").read_bytes()
    (runs[0] / "checkpoints" / "best.ckpt").unlink()
    assert combine(*runs, "--output", tmp_path / "reports")[0] == 0
    assert (tmp_path / "reports" / "ensemble" / "ensemble.json").read_bytes() == with_option
    status, output, errors = combine(*runs, "--checkpoint", tmp_path / "b.ckpt", "--output", tmp_path / "other")
    assert (status, output) == (1, "")
    assert "member0/checkpoints/best.ckpt is not a file" in errors
    assert not (tmp_path / "b.ckpt").exists()
    assert not (tmp_path / "other" / "ensemble").exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ensemble.onnx", "must end in .ckpt"),
        ("ensemble", "must end in .ckpt"),
        ("sweep/member1/checkpoints/best.ckpt", "among the checkpoints of a run"),
        ("sweep/member1/checkpoints/new.ckpt", "among the checkpoints of a run"),
        ("folder.ckpt", "is a folder"),
        ("link.ckpt", "would overwrite an input"),
        ("file/ensemble.ckpt", "cannot be written"),
    ],
)
def test_other_outputs_are_refused(name: str, reason: str, runs: list[Path], tmp_path: Path, combine: Run) -> None:
    (tmp_path / "folder.ckpt").mkdir()
    (tmp_path / "file").touch()
    outside = (runs[0] / "checkpoints" / "best.ckpt").rename(tmp_path / "outside.ckpt")
    (runs[0] / "checkpoints" / "best.ckpt").symlink_to(outside)
    os.symlink(outside, tmp_path / "link.ckpt")
    before = outside.read_bytes()
    status, output, errors = combine(*runs, "--checkpoint", tmp_path / name)
    assert (status, output) == (1, "")
    assert "--checkpoint" in errors
    assert reason in " ".join(errors.split())
    assert errors.strip().count("\n") == 0
    assert outside.read_bytes() == before


def test_runs_with_other_inputs_are_named(runs: list[Path], tmp_path: Path, combine: Run) -> None:
    path = runs[1] / "checkpoints" / "best.ckpt"
    content = read_checkpoint(path)
    content["hyper_parameters"]["crop_pct"] = 0.9
    save_checkpoint(content, path)
    status, _, errors = combine(*runs, "--checkpoint", tmp_path / "a.ckpt")
    assert status == 1
    for text in ("member1/checkpoints/best.ckpt has crop_pct=0.9", "member0/checkpoints/best.ckpt has crop_pct=0.875"):
        assert text in errors
    assert not (tmp_path / "a.ckpt").exists()


def test_ensembles_and_damaged_files_cannot_be_members(members: list[Path], ensemble: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ensemble\.ckpt cannot be a member.*ensemble itself"):
        write_ensemble([members[0], ensemble], tmp_path / "a.ckpt")
    (tmp_path / "damaged.ckpt").write_bytes(members[0].read_bytes()[:-1000])
    with pytest.raises(ConfigError, match=r"damaged\.ckpt cannot be read"):
        write_ensemble([members[1], tmp_path / "damaged.ckpt"], tmp_path / "a.ckpt")


def test_damaged_ensembles_are_reported(ensemble: Path, tmp_path: Path, scans: Path, run: Run) -> None:
    damaged = bytearray(ensemble.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "damaged.ckpt").write_bytes(damaged)
    status, output, errors = run(tmp_path / "damaged.ckpt", scans / "0.png")
    assert (status, output) == (1, "")
    assert "damaged.ckpt" in errors
    assert errors.strip().count("\n") == 0


def test_the_run_of_a_member_did_not_train_the_ensemble(runs: list[Path], tmp_path: Path) -> None:
    paths = [run / "checkpoints" / "best.ckpt" for run in runs]
    write_ensemble(paths, tmp_path / "ensemble.ckpt")
    with pytest.raises(ConfigError, match="did not train this network"):
        find_reference(load_model(tmp_path / "ensemble.ckpt", "cpu"), runs[0])
    reference = find_reference(load_model(tmp_path / "ensemble.ckpt", "cpu"), None)
    assert not isinstance(reference, str)
    assert reference.origin == "stored in the checkpoint"
    content = read_checkpoint(paths[0])
    del content["internal_test"]
    save_checkpoint(content, paths[0])
    write_ensemble(paths, tmp_path / "ensemble.ckpt")
    with pytest.raises(ConfigError, match="weights differ"):
        find_reference(load_model(tmp_path / "ensemble.ckpt", "cpu"), runs[0])
