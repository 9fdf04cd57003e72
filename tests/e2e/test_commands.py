"""The scripts as a user runs them: help, user errors, sweeps."""

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from helpers.commands import ROOT, Compose, Script
from lightning import Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pneumo.config.output_folder import LOCK
from pneumo.models.classifier import Classifier
from pneumo.training.components import build

Done = subprocess.CompletedProcess[str]
Execute = Callable[..., Done]


def execute_subprocess(name: str, *arguments: str) -> Done:
    return subprocess.run([sys.executable, name, *arguments], cwd=ROOT, capture_output=True, text=True)


@pytest.fixture
def execute(run_script: Script, capsys: pytest.CaptureFixture[str]) -> Execute:
    """Run a script in this process; return its status, output and errors."""

    def run(name: str, *arguments: str) -> Done:
        return Done(arguments, run_script(name, *arguments), *capsys.readouterr())

    return run


@pytest.mark.parametrize("script", ["train.py", "sweep.py"])
def test_help_and_configuration_are_fast_and_import_no_heavy_libraries(script: str) -> None:
    heavy = ("torch", "lightning", "numpy")
    code = f"import runpy, sys; sys.argv[:] = {[script]} + sys.argv[1:]\n"
    code += f"try: runpy.run_path({script!r}, run_name='__main__')\n"
    code += f"finally: print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"

    def show(*option: str) -> tuple[str, float]:
        started, command = time.perf_counter(), [sys.executable, "-c", code, *option]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stderr.strip() == "[]"
        return done.stdout, time.perf_counter() - started

    shown, _ = show("--help")
    assert f"python {script}" in shown
    configuration, seconds = show("--cfg", "job")
    assert "model" in shown
    assert "model" in configuration
    for _ in range(4):  # other processes may slow the machine down
        seconds = seconds if seconds < 1.5 else show("--cfg", "job")[1]
    assert seconds < 1.5


def snapshot(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != "train.log")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def assert_error(done: Done, *messages: str) -> None:
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    for message in messages:
        assert message in done.stderr


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["model=nosuch"], ["model/nosuch", "resnext"]),
        (["optimiser=adam"], ["optimiser", "Did you mean optimizer=adam?"]),
        (["trainer.gradient_clip=1"], ["gradient_clip", "Did you mean +trainer.gradient_clip_val=1?"]),
        (["data.root=/x/archive (1)"], ["""'data.root="/x/archive (1)"'"""]),
        (["optimizer.lr=abc"], ["optimizer.lr=abc", "a number above 0"]),
        (["data.root=/no/such/folder"], ["/no/such/folder", "data=synthetic", "PNEUMO_DATA_ROOT"]),
        (["data.split=nosuch"], ["data.split=nosuch", "data.split=patient"]),
        (["trainer.precision=17"], ["trainer.precision=17 must be auto"]),
        (["optimizer.weight_decay=-1"], ["optimizer.weight_decay=-1", "a number from 0"]),
        (["trainer.limit_train_batches=1e-9"], ["Lightning cannot run", "limit_train_batches"]),
        (["~scheduler"], ["`scheduler` is missing"]),
        (["+model.dropout=0.5"], ["model.dropout is not a setting"]),
        (["+features.dtype=float16"], ["features.dtype is not a setting"]),
    ],
)
def test_a_user_error_prints_one_paragraph(
    arguments: list[str], messages: list[str], tmp_path: Path, phantoms: Path, execute: Execute
) -> None:
    options = ("data.image_size=32", f"data.root={phantoms}", f"paths.output_dir={tmp_path}")
    assert_error(execute("train.py", *options, *arguments), *messages)


def test_a_missing_gpu(tmp_path: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch, execute: Execute) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = execute("train.py", "trainer=gpu", f"data.root={phantoms}", f"paths.output_dir={tmp_path}")
    assert_error(done, "trainer.accelerator=gpu", "trainer=cpu")


def test_pretrained_weights_without_internet_access(
    tmp_path: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch, execute: Execute
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    done = execute("train.py", "model=resnext", f"data.root={phantoms}", f"paths.output_dir={tmp_path}")
    assert_error(done, "could not be downloaded", "resnext50_32x4d-", os.environ["TORCH_HOME"], "model.weights=null")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_image(workers: int, tmp_path: Path, phantoms: Path, execute: Execute) -> None:
    root = shutil.copytree(phantoms, tmp_path / "data")
    broken = sorted((root / "train" / "NORMAL").iterdir())[3]
    broken.write_bytes(broken.read_bytes()[:900])
    options = (f"data.root={root}", f"paths.output_dir={tmp_path}", "data.image_size=32")
    done = execute("train.py", *options, f"data.num_workers={workers}")
    assert_error(done, str(broken), "is truncated", "pneumo audit")
    assert not list(tmp_path.rglob("results.json"))


def test_an_empty_class(tmp_path: Path, phantoms: Path, execute: Execute) -> None:
    root = shutil.copytree(phantoms, tmp_path / "data")
    shutil.rmtree(root / "val" / "NORMAL")
    assert_error(
        execute("train.py", f"data.root={root}", f"paths.output_dir={tmp_path}"), "val/NORMAL", "at least one image"
    )


@pytest.mark.parametrize("script", ["train.py", "sweep.py"])
def test_an_unwritable_output_folder(script: str, tmp_path: Path, execute: Execute) -> None:
    (tmp_path / "outputs").write_text("a file, where even root cannot create a folder")
    done = execute(script, f"paths.output_dir={tmp_path / 'outputs'}")
    assert_error(done, "cannot be written", "paths.output_dir=FOLDER")


def test_a_second_run_in_a_folder_is_an_error_before_it_writes(tmp_path: Path, execute: Execute) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with FileLock(folder / LOCK):  # simulates another process
        done = execute("train.py", f"hydra.run.dir={folder}")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"Another process is training in {folder}" in done.stderr
    assert os.listdir(folder) == [".run.lock"]


def test_a_rejected_run_keeps_the_configuration_of_the_finished_run(
    finished: Path, tmp_path: Path, phantoms: Path, execute: Execute
) -> None:
    folder = shutil.copytree(finished, tmp_path / "run")
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text("seed: 0\n")
    before = snapshot(folder)
    options = ("trainer=cpu", "data.image_size=32", "data.num_workers=0", f"data.root={phantoms}")
    done = execute("train.py", *options, f"paths.output_dir={tmp_path}", f"hydra.run.dir={folder}")
    assert done.returncode == 1
    assert "would be lost" in done.stderr
    assert snapshot(folder) == before


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_prints_how_to_resume(number: int, status: int, tmp_path: Path, phantoms: Path) -> None:
    command = [sys.executable, "train.py", "trainer=cpu", "data.image_size=32", "data.num_workers=0"]
    command += [f"data.root={phantoms}", f"hydra.run.dir={tmp_path}", "trainer.max_epochs=10000"]
    last = tmp_path / "checkpoints" / "last.ckpt"
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore SIGINT
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(line.startswith("Epoch 2/") for line in process.stdout), "it ended before it could be stopped"
        process.send_signal(number)  # within the seconds for which a checkpoint waits in memory
        output, _ = process.communicate()
    assert process.returncode == status
    assert f"ckpt_path={last}" in output
    assert not (tmp_path / "results.json").exists()


@pytest.mark.slow
def test_a_terminal_gets_a_progress_bar_that_counts_epochs_from_one(tmp_path: Path, phantoms: Path) -> None:
    terminal, stdout = pty.openpty()
    command = [sys.executable, "train.py", "trainer=smoke", "data.image_size=32", "data.num_workers=0"]
    command += [f"data.root={phantoms}", f"hydra.run.dir={tmp_path}"]
    shown = b""
    with subprocess.Popen(command, cwd=ROOT, stdout=stdout, env={**os.environ, "TERM": "xterm"}) as process:
        os.close(stdout)
        with contextlib.suppress(OSError):  # Linux raises it at the end of the output
            while block := os.read(terminal, 1 << 16):
                shown += block
    os.close(terminal)
    assert process.returncode == 0
    plain = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", shown).decode()
    assert re.search(r"Epoch 1/1\s+━", plain)
    assert "Epoch 0" not in plain


@pytest.mark.slow
def test_each_job_of_a_sweep_has_a_folder(tmp_path: Path, phantoms: Path) -> None:
    quick = ["data.image_size=32", "data.batch_size=16", "data.num_workers=0", "trainer=smoke", f"data.root={phantoms}"]
    pair = ("model=xraychestnet", "optimizer=sgd,adam")
    done = execute_subprocess("sweep.py", "-m", *pair, *quick, f"paths.output_dir={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    found = sorted((tmp_path / "sweep" / "study").glob("*/results.json"))
    assert [path.parent.name for path in found] == ["xraychestnet-adam-s0", "xraychestnet-sgd-s0"]
    assert [json.loads(path.read_text())["optimizer"] for path in found] == ["adam", "sgd"]


@pytest.mark.slow
def test_two_processes_test_each_image_once_with_the_results_of_one(
    tmp_path: Path, phantoms: Path, compose_run: Compose
) -> None:
    quick = ["data.image_size=32", "data.batch_size=5", "data.num_workers=0", "trainer.max_epochs=2"]
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    done = execute_subprocess("train.py", *two, *quick, f"data.root={phantoms}", f"paths.output_dir={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    (results,) = (json.loads(path.read_text()) for path in tmp_path.rglob("results.json"))
    (predictions,) = (path.read_text().splitlines()[1:] for path in tmp_path.rglob("predictions.csv"))
    assert len(predictions) == len(set(predictions)) == 32
    (events,) = (EventAccumulator(str(path.parent)) for path in tmp_path.rglob("results.json"))
    events.Reload()
    assert "config/text_summary" in events.Tags()["tensors"]
    (log,) = (path.read_text() for path in tmp_path.rglob("train.log"))
    assert log.count("Training on cpu") == log.count("train: ") == 1
    right = sum(line.split(",")[1] == line.split(",")[3] for line in predictions)
    assert results["test_accuracy"] == pytest.approx(right / 32)
    (best,) = tmp_path.rglob("best.ckpt")
    classifier = Classifier.load_from_checkpoint(best)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    (single,) = trainer.test(classifier, build(compose_run("data.batch_size=5")).datamodule, verbose=False)
    for name, value in single.items():
        if name != "test/loss":
            # float32 sums over two processes can differ in the last bit; one image more or less would be 0.03.
            assert results[name.replace("/", "_")] == pytest.approx(value, abs=1e-7), name
