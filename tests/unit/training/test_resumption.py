"""Resumption from a run's own checkpoint with its own settings only; errors are raised before any write."""

import errno
import logging
import shutil
from pathlib import Path

import pytest
import torch
from helpers.commands import Compose

from pneumo.common.disk import FileError
from pneumo.errors import ConfigError, PneumoError, TrainingError
from pneumo.models.checkpoint_reader import read_checkpoint
from pneumo.training.checkpoints import write_checkpoint
from pneumo.training.components import build, run_settings
from pneumo.training.resumption import check_settings, handle_disk_errors, handle_interruptions, resumable_checkpoint
from pneumo.training.run import run

OPTIONS = ("optimizer=adam", "trainer.max_epochs=2", "figures=true")


def test_resuming_with_other_settings_raises_an_error_that_lists_them(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    (tmp_path / "best.ckpt").touch()
    torch.save({"hyper_parameters": {}, "config": {"seed": 0, "optimizer.lr": 0.1}}, path)
    check_settings(read_checkpoint(path), path, tmp_path / "best.ckpt", {"seed": 0, "optimizer.lr": 0.1})
    with pytest.raises(ConfigError, match=r"optimizer\.lr=0\.1 \(now 0\.2\).*model\.weights"):
        check_settings(read_checkpoint(path), path, tmp_path / "best.ckpt", {"seed": 0, "optimizer.lr": 0.2})


def test_a_run_resumes_only_next_to_its_best_checkpoint(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    for folder in (own, other):
        folder.mkdir()
        torch.save({"hyper_parameters": {}, "config": {}}, folder / "last.ckpt")
    (other / "best.ckpt").touch()
    for folder in (own, other):
        with pytest.raises(ConfigError, match=r"best\.ckpt.*RUN/checkpoints/last\.ckpt"):
            check_settings(read_checkpoint(own / "last.ckpt"), own / "last.ckpt", folder / "best.ckpt", {})


@pytest.mark.parametrize("stored", [{}, {"seed": torch.zeros(2)}, {"seed": [[]]}, {"seed": "0"}])
def test_settings_of_other_types_differ(stored: object, tmp_path: Path) -> None:
    (tmp_path / "best.ckpt").touch()
    with pytest.raises(ConfigError, match=r"last\.ckpt .*settings"):
        check_settings({"config": stored}, tmp_path / "last.ckpt", tmp_path / "best.ckpt", {"seed": 0})


@pytest.mark.slow
def test_a_checkpoint_with_a_foreign_path_is_not_resumed_and_the_file_is_kept(
    finished: Path, compose_run: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    victim, folder = tmp_path / "best.ckpt", shutil.copytree(finished, tmp_path / "run")
    shutil.copy(finished / "checkpoints" / "best.ckpt", victim)
    last = folder / "checkpoints" / "last.ckpt"
    content = read_checkpoint(last)
    for state in content["callbacks"].values():
        if state.get("best_model_score") is not None:
            state["best_model_path"] = str(victim)
    write_checkpoint(content, last)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    cfg = compose_run(*OPTIONS, f"ckpt_path={last}")
    with pytest.raises(ConfigError, match=r"ckpt_path=.*cannot be resumed"):
        run(cfg)
    components = build(cfg)
    with caplog.at_level(logging.WARNING):
        assert resumable_checkpoint(last, run_settings(cfg, components.datamodule), components) is None  # as in a sweep
    assert "Training from scratch" in caplog.text
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_a_finished_run_resumes_from_its_last_checkpoint(finished: Path, compose_run: Compose, tmp_path: Path) -> None:
    last = shutil.copytree(finished, tmp_path / "run") / "checkpoints" / "last.ckpt"
    cfg = compose_run(*OPTIONS, f"ckpt_path={last}")
    components = build(cfg)
    assert resumable_checkpoint(last, run_settings(cfg, components.datamodule), components) == str(last)


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_disk_error_explains_how_to_resume(tmp_path: Path) -> None:
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    touch(last, tmp_path / "run" / ".run.lock")
    full = FileError(errno.ENOSPC, "No space left on device", None, "roc.png cannot be written (full): make room.")

    def fail(error: OSError | PneumoError, removed: bool = False) -> None:
        with handle_disk_errors(last):
            if removed:
                (tmp_path / "run" / ".run.lock").unlink()
            raise error

    with pytest.raises(ConfigError, match=r"roc\.png cannot be written.*ckpt_path=.*last\.ckpt"):
        fail(full)
    with pytest.raises(FileNotFoundError):
        fail(FileNotFoundError(errno.ENOENT, "No such file or directory", "other"))
    for error in (FileNotFoundError(errno.ENOENT, "No such file or directory", str(last)), TrainingError("no best")):
        touch(tmp_path / "run" / ".run.lock")
        with pytest.raises(ConfigError, match=r"run.* was removed or renamed"):
            fail(error, removed=True)  # checkpoints/ exists, since a writer creates the folder again
    with pytest.raises(TrainingError, match="no best"):  # on a machine that does not share the disk
        fail(TrainingError("no best"))
    touch(tmp_path / "run" / ".run.lock", tmp_path / "run" / "splits.csv")
    with pytest.raises(TrainingError, match="no best"):  # only the lock's file was removed
        fail(TrainingError("no best"), removed=True)


@pytest.mark.parametrize(("config", "message"), [("sweep", "The same command continues from"), ("train", "ckpt_path=")])
def test_an_interruption_explains_how_to_resume(
    config: str, message: str, compose_run: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    compose_run("hydra.mode=MULTIRUN", config=config)  # `train.py -m` resumes nothing either
    touch(last := tmp_path / "run" / "checkpoints" / "last.ckpt")
    with pytest.raises(SystemExit), handle_interruptions(last):
        raise KeyboardInterrupt
    assert message in caplog.text
