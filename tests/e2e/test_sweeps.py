"""Sweeps from the command line: repeated, with user errors, with failures."""

import shutil
from dataclasses import replace
from errno import EACCES, ENOSPC
from pathlib import Path

import pytest
from filelock import FileLock
from helpers.commands import Sweep, results_files, sweep_folder
from helpers.event_files import hparams_row

from pneumo.runs.status import Status, read_status, write_status
from pneumo.sweeps.job import COMMAND, read_command

TWO = ("model=xraychestnet", "optimizer=sgd,adam")


@pytest.mark.slow
def test_repeating_a_command_keeps_finished_jobs(
    sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(*TWO, "seed=0,1", "epochs=1") == 0
    assert "4 jobs: 4 done, 0 skipped, 0 failed" in capsys.readouterr().out
    before = results_files(sweep_folder(tmp_path))
    assert set(before) == {f"xraychestnet-{optimizer}-s{seed}" for optimizer in ("sgd", "adam") for seed in (0, 1)}
    assert (sweep_folder(tmp_path) / "leaderboard.html").is_file()

    assert sweep(*TWO, "seed=0,1", "epochs=1") == 0
    assert "4 jobs: 0 done, 4 skipped, 0 failed" in capsys.readouterr().out
    assert results_files(sweep_folder(tmp_path)) == before

    assert sweep(*TWO) == 1
    error = capsys.readouterr().err
    for word in ("xraychestnet-sgd-s0 (another configuration)", "sweep.name=NAME", "sweep.overwrite=true"):
        assert word in error
    assert results_files(sweep_folder(tmp_path)) == before

    assert sweep(*TWO, "sweep.overwrite=true") == 0
    after = results_files(sweep_folder(tmp_path))
    assert {name for name in before if after[name] != before[name]} == {"xraychestnet-sgd-s0", "xraychestnet-adam-s0"}


@pytest.mark.usefixtures("one_job_done")
def test_finished_runs_on_other_data_are_not_reused(
    sweep: Sweep, tmp_path: Path, phantoms: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = shutil.copytree(phantoms, tmp_path / "moved")
    assert sweep(*TWO[:1], "optimizer=sgd", f"data.root={moved}") == 0
    next((moved / "test" / "NORMAL").iterdir()).unlink()
    assert sweep(*TWO[:1], "optimizer=sgd", f"data.root={moved}") == 1
    assert "xraychestnet-sgd-s0 (other data)" in capsys.readouterr().err


def test_one_failure_does_not_stop_the_others(
    sweep: Sweep, tmp_path: Path, phantoms: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corrupt = shutil.copytree(phantoms, tmp_path / "corrupt")
    broken = sorted((corrupt / "train" / "NORMAL").iterdir())[3]
    broken.write_bytes(broken.read_bytes()[:900])
    roots = f"data.root={phantoms},{corrupt},{tmp_path / 'missing'}"
    assert sweep("model=xraychestnet", "optimizer=sgd", "optimizer.lr=1e30,0.01", roots) == 1
    captured = capsys.readouterr().out
    assert captured.strip().endswith("6 jobs: 1 done, 0 skipped, 5 failed")
    assert "Traceback" not in captured
    folders = {path.parent: read_status(path.parent) for path in sweep_folder(tmp_path).glob("*/status.json")}
    reasons = {folder: status.reason for folder, status in folders.items() if status and status.status == "failed"}
    for word, count in (("loss is nan in epoch 1", 1), (f"{broken} is truncated", 2), ("does not exist", 2)):
        assert sum(word in reason for reason in reasons.values()) == count
    for folder in reasons:
        log = (folder / "train.log").read_text()
        assert "Traceback (most recent call last)" in log
        assert not (folder / "results.json").exists()
    board = (sweep_folder(tmp_path) / "leaderboard.md").read_text()
    assert board.count("| failed |") == 5
    assert "loss is nan in epoch 1" in board


def test_fail_fast_starts_no_further_job(sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("model=xraychestnet", "optimizer=sgd", "optimizer.lr=1e30,0.01", "sweep.fail_fast=true") == 1
    assert "2 jobs: 0 done, 0 skipped, 1 failed, 1 not started" in capsys.readouterr().out
    assert not results_files(sweep_folder(tmp_path))


def test_only_one_command_at_a_time_uses_a_folder(
    sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep_folder(tmp_path).mkdir(parents=True)
    with FileLock(sweep_folder(tmp_path) / ".lock"):
        assert sweep(*TWO) == 1
    assert "Another process is running a sweep" in capsys.readouterr().err
    assert not results_files(sweep_folder(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["seed=0,-1"], ["seed=-1", "a whole number from 0"]),
        (["optimizer.lr=interval(0.1,1)"], ["interval(0.1,1)", "sweep.trials=20"]),
        (["trainer=ddp"], ["one", "python train.py trainer=ddp"]),
        (["seed=0,1", "hydra.sweep.subdir=one"], ["to the same folder: one", "hydra.sweep.subdir"]),
        (["sweep.trials=3"], ["search space is empty", "interval"]),
        (["sweep.trials=3", "sweep.objective=test_auroc"], ["sweep.objective=test_auroc", "val_loss"]),
        (["sweep.trials=0"], ["sweep.trials=0", "a whole number from 1"]),
        (["sweep.overwrite=no"], ["sweep.overwrite=no", "true or false"]),
        (["sweep.name=a/b"], ["sweep.name=a/b", "a folder name"]),
        (["sweep.name=a,b"], ["sweep.name=a,b", "one value"]),
        (["ckpt_path=last.ckpt"], ["ckpt_path=last.ckpt", "train.py"]),
        (["launcher.threads=0"], ["launcher.threads=0"]),
        (["sweep.trials=3", "optimizer.lrr=interval(0.1,1)"], ["lrr"]),
        (["sweep.trials=3", "optimizer.lr=choice(0.1,-1)"], ["optimizer.lr=-1", "above 0"]),
        (["sweep.trials=3", "optimizer.lr=interval(1,0.1)"], ["not a valid interval"]),
        (
            ["sweep.trials=3", "optimizer.lr=interval(0.1,1)", "sweep.storage=nosuch:///x"],
            ["nosuch:///x", "sqlite:///"],
        ),
    ],
)
def test_user_errors_are_reported_before_anything_runs(
    arguments: list[str], words: list[str], sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("model=xraychestnet", "optimizer=sgd", *arguments) == 1
    captured = capsys.readouterr()
    for word in words:
        assert word in captured.err
    assert "Traceback" not in captured.err
    assert not list(tmp_path.rglob("status.json"))


def test_users_may_name_the_folders_and_tensorboard_shows_the_swept_settings(sweep: Sweep, tmp_path: Path) -> None:
    subdir = "hydra.sweep.subdir=\"${choices.optimizer}/${optimizer.momentum} with 'quotes'\""
    assert sweep("model=xraychestnet", "optimizer=sgd", "optimizer.momentum=0.5,0.9", "epochs=1", subdir) == 0
    folders = sorted(path.parent for path in sweep_folder(tmp_path).rglob("results.json"))
    assert [path.relative_to(sweep_folder(tmp_path)).as_posix() for path in folders] == [
        "sgd/0.5 with 'quotes'",
        "sgd/0.9 with 'quotes'",
    ]
    rows = [hparams_row(path) for path in folders]
    assert [row.pop("set/momentum") for row in rows] == [0.5, 0.9]
    assert rows[0].keys() == rows[1].keys()


@pytest.mark.usefixtures("one_job_done")
def test_jobs_that_a_launcher_repeats_or_starts_late_change_nothing(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = sweep_folder(tmp_path) / "xraychestnet-sgd-s0"
    before = results_files(sweep_folder(tmp_path))
    status, command = read_status(folder), read_command(sweep_folder(tmp_path))
    assert status is not None
    assert command is not None
    job = ("model=xraychestnet", "optimizer=sgd", "hydra.mode=RUN", f"hydra.run.dir={folder}", "sweep.overwrite=true")
    monkeypatch.setenv(COMMAND, command.name)
    write_status(folder, replace(status, status="running"))
    assert sweep(*job) == 0  # its worker died after the results were written
    assert results_files(sweep_folder(tmp_path)) == before
    assert read_status(folder) == status
    monkeypatch.setenv(COMMAND, "an earlier command")
    assert sweep(*job, "epochs=1") == 0
    assert results_files(sweep_folder(tmp_path)) == before
    assert read_status(folder) == status


@pytest.mark.usefixtures("one_job_done")
def test_an_overwritten_run_is_kept_until_the_new_run_can_start(sweep: Sweep, tmp_path: Path) -> None:
    before = results_files(sweep_folder(tmp_path))
    missing = f"data.root={tmp_path / 'missing'}"
    assert sweep("model=xraychestnet", "optimizer=sgd", "sweep.overwrite=true", missing) == 1
    assert results_files(sweep_folder(tmp_path)) == before


@pytest.mark.slow
def test_a_job_whose_folder_cannot_be_written_does_not_end_the_others(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(folder: Path, status: Status) -> None:
        if folder.name.startswith("xraychestnet-sgd"):
            raise OSError(ENOSPC, "No space left on device")
        write_status(folder, status)

    monkeypatch.setattr("pneumo.sweeps.job.write_status", write)
    assert sweep(*TWO, "epochs=1") == 1
    shown = capsys.readouterr().out
    assert "No space left on device" in shown
    assert "2 jobs: 1 done, 0 skipped, 0 failed, 1 not started" in shown
    assert set(results_files(sweep_folder(tmp_path))) == {"xraychestnet-adam-s0"}


def test_an_unwritable_sweep_folder_is_reported_in_one_paragraph(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(EACCES, "Permission denied")

    monkeypatch.setattr("pneumo.sweeps.session.start_command", refuse)
    assert sweep(*TWO) == 1
    error = capsys.readouterr().err
    assert f"folder {sweep_folder(tmp_path)} cannot be used (Permission denied)" in error
    assert "Traceback" not in error
