"""Complete runs with several loggers: metrics of each epoch, hyperparameters, results, resuming and sweeps."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.commands import Compose, Sweep, sweep_folder
from helpers.wandb_files import read_offline_runs
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pneumo.config.fingerprints import config_hash
from pneumo.models.classifier import Classifier
from pneumo.reporting.figures.run_figures import run_figures
from pneumo.runs.status import read_tracker_ids
from pneumo.training.run import run

ALL = "logger=[tensorboard,csv,mlflow,wandb]"
EPOCHS = ("train/loss", "train/accuracy", "val/loss", "val/auroc")


def read_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "csv" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def mlflow_runs(outputs: Path, experiment: str) -> tuple[Any, list[Any]]:
    """Return MLflow's client and the runs of an experiment."""
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{outputs}/mlflow.db")
    return client, client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)


def test_several_loggers_record_the_same_epochs_and_only_tensorboard_is_the_default(
    compose_run: Compose, tmp_path: Path
) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("wandb")
    assert list(compose_run().logger) == ["tensorboard"]
    assert len({config_hash(compose_run(each)) for each in ("logger=tensorboard", "logger=many", ALL)}) == 1
    results = run(compose_run("optimizer=adam", "trainer.max_epochs=2", "logger=many"))
    rows = read_rows(tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    for name in EPOCHS:
        logged = {event.step: event.value for event in events.Scalars(name)}
        assert {int(row["epoch"]): float(row[name]) for row in rows} == pytest.approx(logged), name
    assert [row["test/accuracy"] != "" for row in rows] == [False, True]
    assert float(rows[1]["final/auroc"]) == results["test_auroc"]
    parameters = yaml.safe_load((tmp_path / "run" / "csv" / "hparams.yaml").read_text())
    shown = {"model": "xraychestnet", "optimizer": "adam", "seed": 0, "epochs": 2, "overrides": "trainer=cpu"}
    assert parameters.items() >= shown.items()


@pytest.mark.slow
def test_a_resumed_run_continues_in_every_logger(
    compose_run: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("optimizer=adam", "trainer.max_epochs=2", "figures=true", ALL)
    training_step = Classifier.training_step
    steps = iter(range(100))

    def fail_in_the_second_epoch(self: Classifier, *arguments: Any) -> Any:  # noqa: ANN401 (any batch)
        if next(steps) == 6:  # of 4 in each epoch
            raise ZeroDivisionError
        return training_step(self, *arguments)

    monkeypatch.setattr(Classifier, "training_step", fail_in_the_second_epoch)
    folder = tmp_path / "run"
    with pytest.raises(ZeroDivisionError):
        run(compose_run(*settings))
    ids = read_tracker_ids(folder)
    client, (stopped,) = mlflow_runs(tmp_path, "pneumo")
    assert (ids["mlflow"], stopped.info.status) == (stopped.info.run_id, "FAILED")
    monkeypatch.setattr(Classifier, "training_step", training_step)
    results = run(compose_run(*settings, f"ckpt_path={folder / 'checkpoints' / 'last.ckpt'}"))
    assert read_tracker_ids(folder) == ids

    client, (stored,) = mlflow_runs(tmp_path, "pneumo")
    assert (stored.info.run_id, stored.info.status) == (ids["mlflow"], "FINISHED")
    assert stored.info.run_name == "xraychestnet-adam-s0"
    first, second = read_offline_runs(tmp_path)
    assert (first.run_id, second.run_id, first.exit_code, second.exit_code) == (ids["wandb"], ids["wandb"], 1, 0)
    rows = read_rows(folder)
    for name in EPOCHS:
        values = [(int(row["epoch"]), float(row[name])) for row in rows]
        assert [(each.step, each.value) for each in client.get_metric_history(stored.info.run_id, name)] == values
        for part, value in zip((first, second), values, strict=True):
            assert [(row["epoch"], row[name]) for row in part.history if name in row] == [value]
    assert float(stored.data.metrics["final/auroc"]) == second.summary["final/auroc"] == results["test_auroc"]
    assert (stored.data.params["lr"], stored.data.params["config/optimizer.lr"]) == ("0.0001", "0.0001")
    assert second.config["config"]["ckpt_path"].endswith("last.ckpt")
    figures = {f"{figure.name}.png" for figure in run_figures(folder) if figure.name != "training_batch"}
    artifacts = tmp_path / "mlartifacts" / ids["mlflow"] / "artifacts" / "figures"
    assert {path.name for path in artifacts.rglob("*.png")} == {*figures, "batch.png"}
    assert len(list((tmp_path / "wandb").glob("offline-*/files/media/images/*/*.png"))) == len(figures) + 2


@pytest.mark.slow
def test_each_job_of_a_sweep_is_a_run_in_every_logger(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("model=xraychestnet", "optimizer=sgd", "optimizer.lr=0.001,0.01", "sweep.name=rates", ALL) == 0
    folders = {path.parent.name: path.parent for path in sweep_folder(tmp_path, "rates").rglob("results.json")}
    assert set(folders) == {"xraychestnet-sgd-s0-lr0.001", "xraychestnet-sgd-s0-lr0.01"}
    _, runs = mlflow_runs(tmp_path / "outputs", "rates")
    offline = {each.run_id: each for each in read_offline_runs(tmp_path / "outputs")}
    assert len(runs) == len(offline) == 2
    for stored in runs:
        folder, rate = folders[stored.info.run_name], stored.info.run_name.rpartition("lr")[2]
        results, ids = json.loads((folder / "results.json").read_text()), read_tracker_ids(folder)
        assert ids["mlflow"] == stored.info.run_id
        other = offline[ids["wandb"]]
        assert (other.project, other.name) == ("rates", folder.name)
        assert (stored.data.params["lr"], other.config["lr"]) == (rate, float(rate))
        assert stored.data.metrics["final/accuracy"] == other.summary["final/accuracy"] == results["test_accuracy"]
        assert [row["epoch"] for row in read_rows(folder)] == ["1", "2"]
