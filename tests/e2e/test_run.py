"""Complete runs on phantoms: their files and their reproducibility."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import reference_metrics
from helpers.commands import ROOT, Compose, train_with
from helpers.event_files import hparams_row
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pneumo.errors import ConfigError, TrainingError
from pneumo.models.classifier import Classifier
from pneumo.reporting.figures.run_figures import CAPTIONS, run_figures
from pneumo.runs.result_rules import RESULT_NAMES
from pneumo.training.components import build
from pneumo.training.run import run

TIMES = {"cache_seconds", "train_seconds", "total_seconds", "samples_per_second", "peak_memory_bytes"}


def read_metrics(folder: Path) -> dict[str, object]:
    results = json.loads((folder / "results.json").read_text())
    return {name: value for name, value in results.items() if name not in TIMES}


def test_a_run_writes_the_documented_files_and_results(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    assert list(results) == list(RESULT_NAMES)
    assert (results["model"], results["optimizer"], results["experiment"]) == ("xraychestnet", "adam", "study")
    assert (results["epochs"], results["batch_size"], results["precision"]) == (2, 16, "32-true")
    assert results["parameters_total"] == results["parameters_trainable"] > 1_000_000
    with (finished / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 32
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    correct = sum(row["label"] == row["prediction"] for row in rows)
    assert results["test_accuracy"] == pytest.approx(correct / 32)
    assert correct == results["test_true_positives"] + results["test_true_negatives"]
    best = torch.load(finished / "checkpoints" / "best.ckpt", weights_only=True)
    last = torch.load(finished / "checkpoints" / "last.ckpt", weights_only=True)
    assert (best["epoch"] + 1, last["epoch"]) == (results["best_epoch"], 1)
    assert results["train_accuracy"] == best["metrics"]["train/accuracy"]
    files = {path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()}
    plotted = run_figures(finished)
    assert [figure.name for figure in plotted] == list(CAPTIONS)
    figures = {path.relative_to(finished).as_posix() for figure in plotted for path in (figure.png, figure.svg)}
    checkpoints = {"checkpoints/best.ckpt", "checkpoints/last.ckpt"}
    events = {path for path in files if path.startswith("events.out.tfevents.")}
    tables = {"predictions.csv", "validation.csv", "splits.csv"}
    assert files == {"results.json", *tables, *figures, *checkpoints, *events, ".run.json", ".run.lock"}


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux do the phantoms have such a name")
def test_file_names_that_are_not_utf8_are_escaped(finished: Path) -> None:
    for name in ("predictions", "validation", "splits"):
        with (finished / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            escaped = [row["path"] for row in csv.DictReader(file) if row["path"].endswith(r"_\udce9.jpeg")]
        assert len(escaped) == (3 if name == "splits" else 1)


def test_every_test_metric_equals_an_independent_implementation(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    names = {name for name in results if name.startswith("test_") and "true_" not in name and "false_" not in name}
    assert names == reference_metrics.compute(finished).keys()
    reference_metrics.check_results(results, finished)


def test_tensorboard_shows_one_run_with_curves_configuration_and_one_hparams_row(finished: Path) -> None:
    folders = {path.parent for path in finished.parent.rglob("events.out.tfevents.*")}
    assert folders == {finished}
    events = EventAccumulator(str(finished))
    events.Reload()
    scalars = events.Tags()["scalars"]
    for name in ("train/loss", "train/accuracy", "val/loss", "val/auroc", "test/accuracy", "final/accuracy"):
        assert name in scalars
    assert [event.step for event in events.Scalars("val/loss")] == [1, 2]
    assert [event.step for event in events.Scalars("test/accuracy")] == [2]
    of_test = {f"test/{name}" for name in CAPTIONS.keys() - {"learning_curves", "training_batch"}}
    assert set(events.Tags()["images"]) == {*of_test, "train/learning_curves", "train/batch"}
    steps = {tag: [event.step for event in events.Images(tag)] for tag in events.Tags()["images"]}
    assert steps == {tag: [0] if tag == "train/batch" else [2] for tag in steps}
    assert events.PluginTagToContent("pr_curves").keys() == {"test/precision_recall/PNEUMONIA"}
    rates = [(event.step, event.value) for event in events.Scalars("lr-Adam")]
    assert rates == [(1, pytest.approx(1e-4)), (2, pytest.approx(0.5e-4))]  # of a cosine schedule
    assert "optimizer" in events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    row = hparams_row(finished)
    assert list(row)[:4] == ["lr", "model", "optimizer", "seed"]
    assert (row["model"], row["seed"]) == ("xraychestnet", 0)
    assert all(name.startswith("setup/") for name in list(row)[4:])  # swept ones would sort before these
    assert row["setup/overrides"] == "trainer=cpu"


def test_the_checkpoint_reproduces_the_probabilities_of_predictions_csv(finished: Path, compose_run: Compose) -> None:
    classifier = Classifier.load_from_checkpoint(finished / "checkpoints" / "best.ckpt").eval()
    data = build(compose_run(folder="other")).datamodule
    with torch.inference_mode():
        computed = torch.cat([classifier.predict_step(batch, 0)[:, 1] for batch in data.predict_dataloader()]).numpy()
    with (finished / "predictions.csv").open(newline="") as file:
        written = np.array([row["probability"] for row in csv.DictReader(file)], np.float32)
    np.testing.assert_allclose(computed, written, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("model", "epochs"), [pytest.param("xraychestnet", 2, marks=pytest.mark.slow), ("efficientnet_lite0", 1)]
)
def test_results_are_bit_identical_regardless_of_the_number_of_workers(
    model: str, epochs: int, compose_run: Compose, tmp_path: Path
) -> None:
    for folder, workers in (("one", 0), ("two", 2)):
        overrides = [f"model={model}", f"data.num_workers={workers}", f"trainer.max_epochs={epochs}"]
        run(compose_run(*overrides, folder=folder))
    first = (tmp_path / "one" / "predictions.csv").read_bytes()
    assert (tmp_path / "two" / "predictions.csv").read_bytes() == first
    assert read_metrics(tmp_path / "one") == read_metrics(tmp_path / "two")
    run(compose_run(f"model={model}", "seed=1", f"trainer.max_epochs={epochs}", folder="other"))
    assert (tmp_path / "other" / "predictions.csv").read_bytes() != first


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_run_resumes_to_the_same_results(
    workers: int, compose_run: Compose, tmp_path: Path, phantoms: Path
) -> None:
    run(compose_run("optimizer=adagrad", "trainer.max_epochs=6", "figures=true", folder="whole"))
    command = [*train_with("pneumo.training.checkpoints.PAUSE", 0), "optimizer=adagrad", "trainer=cpu"]
    command += ["trainer.max_epochs=6", "data.image_size=32", "data.batch_size=16", f"data.num_workers={workers}"]
    command += [f"data.root={phantoms}", f"paths.output_dir={tmp_path}"]
    folder = tmp_path / "killed"
    with subprocess.Popen([*command, f"hydra.run.dir={folder}"], cwd=ROOT, start_new_session=True) as process:
        while not (folder / "checkpoints" / "last.ckpt").exists():
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    assert not (folder / "results.json").exists()
    last = folder / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["epoch"] < 5
    moved = tmp_path / "moved"
    folder.rename(moved)
    subprocess.run([*command, f"ckpt_path={moved / 'checkpoints' / 'last.ckpt'}"], cwd=ROOT, check=True)
    assert (moved / "predictions.csv").read_bytes() == (tmp_path / "whole" / "predictions.csv").read_bytes()
    assert read_metrics(moved) == read_metrics(tmp_path / "whole")
    for name in ("learning_curves", "training_batch"):
        plots = [(folder / "figures" / f"{name}.svg").read_bytes() for folder in (moved, tmp_path / "whole")]
        assert plots[0] == plots[1]


def test_a_run_resumes_only_with_the_same_settings_and_data(
    finished: Path, compose_run: Compose, tmp_path: Path, phantoms: Path
) -> None:
    last = shutil.copytree(finished, tmp_path / "run") / "checkpoints" / "last.ckpt"
    with pytest.raises(ConfigError, match=r"optimizer\.lr=0\.0001 \(now 0\.5\)"):
        run(compose_run("optimizer=adam", "trainer.max_epochs=2", "optimizer.lr=0.5", f"ckpt_path={last}"))
    root = shutil.copytree(phantoms, tmp_path / "data")
    next((root / "train" / "NORMAL").iterdir()).unlink()
    with pytest.raises(ConfigError, match=r"data_hash=\w+ \(now \w+\)"):
        run(compose_run("optimizer=adam", "trainer.max_epochs=2", f"data.root={root}", f"ckpt_path={last}"))
    assert (tmp_path / "run" / "results.json").exists()


def test_a_non_finite_loss_stops_the_run_before_a_checkpoint(compose_run: Compose, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"loss is (nan|inf) in epoch \d.*optimizer\.lr"):
        run(compose_run("optimizer.lr=1e30", "trainer.max_epochs=3"))
    assert not (tmp_path / "run" / "results.json").exists()
    for path in (tmp_path / "run").rglob("*.ckpt"):
        weights = torch.load(path, weights_only=True)["state_dict"]
        assert all(tensor.isfinite().all() for tensor in weights.values())


def test_a_collapsed_run_logs_a_warning(compose_run: Compose, caplog: pytest.LogCaptureFixture) -> None:
    results = run(compose_run("optimizer.lr=1e-12", "trainer.max_epochs=1"))
    assert results["collapsed"] is True
    assert "COLLAPSED" in caplog.text


def test_a_rerun_in_the_same_folder_removes_all_files_of_the_first_run(
    finished: Path, compose_run: Compose, tmp_path: Path
) -> None:
    folder = shutil.copytree(finished, tmp_path / "run")
    events, before = set(folder.glob("events.*")), read_metrics(folder)
    with pytest.raises(ConfigError, match="would be lost"):
        run(compose_run("optimizer=sgd", "trainer.max_epochs=2"))
    assert read_metrics(folder) == before
    run(compose_run("optimizer=adam", "trainer.max_epochs=2"))  # figures=false does not change the results
    assert read_metrics(folder) == before
    assert not events & set(folder.glob("events.*"))
    assert not run_figures(folder)


def test_weights_in_half_precision_are_trained_and_tested(compose_run: Compose) -> None:
    assert run(compose_run("trainer.precision=bf16-true", "trainer.max_epochs=1"))["status"] == "done"


def test_a_test_on_part_of_the_test_set_is_marked_as_partial(
    compose_run: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    quick = ("trainer=smoke", "trainer.accelerator=cpu", "data.batch_size=4")
    results = run(compose_run(*quick, "logger.tensorboard.projector=true"))
    assert results["status"] == "partial"
    assert "PARTIAL" in caplog.text
    for name in ("predictions.csv", "projector/test/metadata.tsv"):
        assert len((tmp_path / "run" / name).read_text().splitlines()) == 1 + 8
    assert {path.parent for path in tmp_path.rglob("*tfevents*")} == {tmp_path / "run"}


def test_synthetic_data_require_no_download(compose_run: Compose, tmp_path: Path) -> None:
    small = ["data.train=20", "data.val=6", "data.test=10", f"data.root={tmp_path / 'synthetic'}"]
    results = run(compose_run("experiment=demo", "epochs=1", "data.image_size=32", *small))
    assert (results["data"], results["experiment"]) == ("synthetic", "demo")
    assert len(list((tmp_path / "synthetic").rglob("*.jpeg"))) == 36


def test_a_run_stopped_during_its_test_fails_and_explains_how_to_resume(
    compose_run: Compose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(Classifier, "test_step", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as stop:
        run(compose_run("trainer.max_epochs=1", "data.batch_size=4"))
    assert stop.value.code == 143
    assert f"python train.py ckpt_path={tmp_path / 'run' / 'checkpoints' / 'last.ckpt'}" in caplog.text


def test_a_run_stopped_before_its_first_checkpoint_suggests_no_checkpoint(
    compose_run: Compose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Classifier, "training_step", interrupt)
    with pytest.raises(SystemExit) as stop:
        run(compose_run("trainer.max_epochs=1"))
    assert stop.value.code == 130
    assert "No checkpoint was written yet" in caplog.text
    assert "ckpt_path" not in caplog.text


def test_a_run_without_a_checkpoint_raises_an_error(compose_run: Compose) -> None:
    with pytest.raises(TrainingError, match="No checkpoint was written"):
        run(compose_run("+trainer.fast_dev_run=1"))
