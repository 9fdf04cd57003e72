"""Sweeps that are stopped or killed, and resumed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.commands import ROOT, Sweep, read_metrics, results_files, sweep_folder
from lightning.pytorch.callbacks import ModelCheckpoint

from pneumo.common.disk import PREFIX
from pneumo.models.classifier import Classifier

TWO = ("model=xraychestnet", "optimizer=sgd,adam")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_sweep_resumes_with_the_same_results(
    number: int,
    status: int,
    sweep: Sweep,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore SIGINT
    model = ("model=efficientnet_lite0", "optimizer=sgd,adam", "epochs=4")
    assert sweep(*model, "sweep.name=whole") == 0
    measure = Classifier.on_validation_epoch_end

    def stop(classifier: Classifier) -> None:
        measure(classifier)
        if classifier.trainer.current_epoch == 2:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "on_validation_epoch_end", stop)
        assert sweep(*model) == status
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning ignores SIGINT after the first one
    shown = capsys.readouterr().out
    assert "2 jobs: 0 done, 0 skipped, 0 failed, 1 stopped, 1 not started" in shown
    assert "Run the same command again to resume" in shown
    assert "stopped" in (sweep_folder(tmp_path) / "leaderboard.md").read_text()

    assert sweep(*model) == 0
    shown = capsys.readouterr().out
    assert "Resuming from" in shown
    assert "2 jobs: 2 done" in shown
    assert read_metrics(sweep_folder(tmp_path)) == read_metrics(sweep_folder(tmp_path, "whole"))


@pytest.mark.slow
def test_an_unfinished_run_with_other_settings_is_kept_unless_overwriting_is_allowed(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ("model=efficientnet_lite0", "optimizer=sgd")
    with monkeypatch.context() as patch:
        patch.setattr("pneumo.training.run.write_results", None)  # fails after training
        assert sweep(*model) == 1
    last = sweep_folder(tmp_path) / "efficientnet_lite0-sgd-s0" / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    assert sweep(*model, "optimizer.lr=0.02") == 1
    shown = capsys.readouterr().out
    assert "optimizer.lr=0.003 (now 0.02)" in shown
    assert "sweep.overwrite=true" in shown
    assert last.read_bytes() == before
    assert sweep(*model, "optimizer.lr=0.02", "sweep.overwrite=true") == 0


@pytest.mark.slow
def test_a_run_that_failed_after_training_is_only_tested(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ("model=efficientnet_lite0", "optimizer=sgd")
    assert sweep(*model, "sweep.name=whole") == 0
    with monkeypatch.context() as patch:
        patch.setattr("pneumo.training.run.write_results", None)
        assert sweep(*model) == 1
    assert sweep(*model) == 0
    assert read_metrics(sweep_folder(tmp_path)) == read_metrics(sweep_folder(tmp_path, "whole"))


@pytest.mark.slow
def test_a_stopped_overwriting_sweep_resumes(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ("model=efficientnet_lite0", "optimizer=sgd,adam")
    assert sweep(*model) == 0
    overwriting = (*model, "epochs=3", "sweep.overwrite=true")
    measure = Classifier.on_validation_epoch_end

    def stop(classifier: Classifier) -> None:
        measure(classifier)
        if '"epochs": 3' in (sweep_folder(tmp_path) / "efficientnet_lite0-sgd-s0" / "results.json").read_text():
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "on_validation_epoch_end", lambda classifier: stop_if_second(classifier, stop))
        assert sweep(*overwriting) == 143
    assert "1 done" in capsys.readouterr().out
    first = results_files(sweep_folder(tmp_path))["efficientnet_lite0-sgd-s0"]
    assert sweep(*overwriting) == 0
    assert "2 jobs: 1 done, 1 skipped, 0 failed" in capsys.readouterr().out
    assert results_files(sweep_folder(tmp_path))["efficientnet_lite0-sgd-s0"] == first
    assert sweep(*overwriting) == 0  # reruns all jobs, since the last command was complete
    assert "2 jobs: 2 done, 0 skipped, 0 failed" in capsys.readouterr().out


def stop_if_second(classifier: Classifier, stop: Callable[[Classifier], None]) -> None:
    """Call `stop` in the second job only: the results of the first job are missing while it trains."""
    best = classifier.trainer.checkpoint_callback
    assert isinstance(best, ModelCheckpoint)
    assert best.dirpath is not None
    folder = Path(best.dirpath).parent
    if folder.name.startswith("efficientnet_lite0-adam"):
        stop(classifier)
    else:
        classifier._log_metrics("val")


@pytest.mark.slow
def test_a_killed_sweep_resumes_with_the_same_results(sweep: Sweep, tmp_path: Path, phantoms: Path) -> None:
    options = ("model=xraychestnet,efficientnet_lite0", "optimizer=sgd", "epochs=3")
    assert sweep(*options, "sweep.name=whole") == 0
    command = [sys.executable, *sys.argv[:-1], "sweep.name=killed"]
    for present in ("xraychestnet-sgd-s0/checkpoints/last.ckpt", "efficientnet_lite0-sgd-s0/status.json"):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True) as process:
            while not (sweep_folder(tmp_path, "killed") / present).exists():
                assert process.poll() is None, "it ended before it could be killed"
                time.sleep(0.005)
            os.killpg(process.pid, signal.SIGKILL)
    first = results_files(sweep_folder(tmp_path, "killed"))
    assert sweep(*options, "sweep.name=killed") == 0
    assert read_metrics(sweep_folder(tmp_path, "killed")) == read_metrics(sweep_folder(tmp_path, "whole"))
    assert not list(tmp_path.rglob(f"{PREFIX}*"))
    after = results_files(sweep_folder(tmp_path, "killed"))
    assert all(after[name] == content for name, content in first.items())
