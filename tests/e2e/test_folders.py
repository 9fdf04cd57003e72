"""Runs with full disks, kills during writes, and outputs that would overwrite inputs."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.commands import ROOT, Compose, command_runner
from tensorboard.summary.writer.record_writer import RecordWriter

from pneumo.common.disk import PREFIX, suppress_thread_tracebacks
from pneumo.errors import ConfigError, PneumoError
from pneumo.models.classifier import Classifier
from pneumo.training.run import run


def fill(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Simulate a full disk when the file `name` is renamed to its final name."""
    replace = Path.replace

    def fail(path: Path, target: Path) -> Path:
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fail)


@pytest.mark.slow
def test_a_full_disk_during_figures_does_not_require_training_again(
    compose_run: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("trainer.max_epochs=1", "figures=true")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    with monkeypatch.context() as patch:
        fill(patch, "roc.png")
        with pytest.raises(ConfigError, match=rf"roc\.png cannot be written \(No space.*ckpt_path={last}"):
            run(compose_run(*options))
    predictions = (tmp_path / "run" / "predictions.csv").read_bytes()
    assert not (tmp_path / "run" / "results.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", lambda *_: pytest.fail("trained again"))
        run(compose_run(*options, f"ckpt_path={last}"))
    assert (tmp_path / "run" / "predictions.csv").read_bytes() == predictions
    assert (tmp_path / "run" / "results.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["splits.csv", "training_batch.png", "best.ckpt", "results.json", "events"])
def test_a_full_disk_is_one_error_for_any_file(
    name: str, compose_run: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if name == "events":
        monkeypatch.setattr(RecordWriter, "write", fail)
    else:
        fill(monkeypatch, name)
    with (
        suppress_thread_tracebacks(),
        pytest.raises(PneumoError, match=r"cannot be written \(No space left on device\)"),
    ):
        run(compose_run("trainer.max_epochs=1", "figures=true"))


@pytest.mark.slow
def test_temporary_files_of_a_killed_run_are_removed_by_the_next_run(tmp_path: Path, phantoms: Path) -> None:
    options = ["trainer=cpu", "data.image_size=32", "data.batch_size=16", "data.num_workers=0", "epochs=1"]
    options += [f"data.root={phantoms}", f"paths.output_dir={tmp_path}", f"hydra.run.dir={tmp_path / 'run'}"]
    code = (
        "import os, runpy, signal, sys, pneumo.common.files\n"
        "flush, kill = pneumo.common.files.flush, sys.argv[1]; sys.argv[:2] = []\n"
        "def stop(path):\n"
        "    if path.suffix == kill: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    flush(path)\n"
        "pneumo.common.files.flush = stop; runpy.run_path('train.py', run_name='__main__')"
    )
    command = [sys.executable, "-c", code]
    killed = subprocess.run([*command, ".png", "train.py", *options], cwd=ROOT, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.rglob(f"{PREFIX}*.png"))) == 1
    subprocess.run([*command, "none", "train.py", *options], cwd=ROOT, check=True, capture_output=True)
    assert not list(tmp_path.rglob(f"{PREFIX}*"))
    assert (tmp_path / "run" / "results.json").exists()


def test_an_output_that_is_an_input_is_rejected(
    finished: Path, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = tmp_path / "scans" / "NORMAL"
    scans.mkdir(parents=True)
    image = Path(shutil.copy(min((phantoms / "test" / "NORMAL").iterdir()), scans / "a.jpeg"))
    best, before = finished / "checkpoints" / "best.ckpt", image.read_bytes()
    for name, arguments, option in (
        ("predict", (best, scans, "--csv", image), "--csv"),
        ("predict", (best, scans, "--json", tmp_path / "x", "--csv", tmp_path / "x"), "--csv"),
        ("audit", (tmp_path / "scans", "--html", image), "--html"),
    ):
        status, _, err = command_runner(name, monkeypatch, capsys)(*arguments)
        assert status == 1
        assert err.startswith(f"{option} ")
    assert image.read_bytes() == before
