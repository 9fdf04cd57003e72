import csv
import logging
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from helpers.commands import Compose
from helpers.run_files import RESULTS
from helpers.setups import make_setup
from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger

from pneumo.errors import ConfigError
from pneumo.runs.status import read_tracker_ids
from pneumo.training.csv_logger import CSVRunLogger
from pneumo.training.loggers import RunLogger
from pneumo.training.mlflow_logger import MLFlowRunLogger
from pneumo.training.tracking import OtherLogger, Setup, Tracker, by_epoch, describe_setup, final_metrics, run_loggers
from pneumo.training.wandb_logger import WandbRunLogger


class Memory(Tracker):
    """Tracker that keeps the names of its calls and fails in one of them."""

    title, extra, address = "Memory", "memory", "http://nowhere"

    def __init__(self, folder: Path, fails: str = "", error: type[Exception] = OSError) -> None:
        super().__init__(str(folder), "project", "name")
        self.fails, self.error, self.calls = fails, error, list[str]()

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name == self.fails:
            raise self.error(f"no\nconnection in {name}.")

    def start(self, run_id: str | None) -> str:
        self._call(f"start {run_id}")
        return run_id or "new"

    def send_setup(self, setup: Setup) -> None:
        self._call("setup")

    def send_metrics(self, metrics: Mapping[str, float], epochs: int) -> None:
        self._call(f"metrics {dict(metrics)} {epochs}")

    def send_images(self, images: Mapping[str, bytes], epochs: int) -> None:
        self._call("images")

    def send_results(self, metrics: Mapping[str, float], epochs: int) -> None:
        self._call("results")

    def end(self, failed: bool) -> None:
        self._call(f"end {failed}")


@pytest.mark.parametrize(
    ("metrics", "step", "shown", "epochs"),
    [
        ({"val/loss": 0.5, "epoch": 0.0}, 7, {"val/loss": 0.5}, 1),
        ({"test/loss": 0.5, "epoch": 3}, 7, {"test/loss": 0.5}, 3),
        ({"val/loss": 0.5}, 7, {"val/loss": 0.5}, 7),
    ],
)
def test_the_step_is_the_number_of_finished_epochs(
    metrics: dict[str, float], step: int, shown: dict[str, float], epochs: int
) -> None:
    assert by_epoch(metrics, step) == (shown, epochs)


def test_a_tracker_receives_the_whole_run_and_a_resumed_one_its_id(tmp_path: Path) -> None:
    for run_id in (None, "new"):
        tracker = Memory(tmp_path)
        assert tracker.version is None
        tracker.log_setup(make_setup())
        tracker.log_metrics({"val/loss": 0.5, "epoch": 0}, 9)
        tracker.log_images({"test/roc": b""}, 1)
        tracker.finalize("success")  # of training; the test follows
        tracker.log_results(RESULTS, make_setup(), 1)
        tracker.close()
        tracker.log_metrics({"val/loss": 0.5, "epoch": 0}, 9)
        sent = [f"start {run_id}", "setup", "metrics {'val/loss': 0.5} 1", "images", "results", "end False"]
        assert tracker.calls == sent
        assert (tracker.name, tracker.version, read_tracker_ids(tmp_path)) == ("project", "new", {"memory": "new"})


@pytest.mark.parametrize("fails", ["start None", "setup"])
def test_a_tracker_that_fails_at_the_start_is_a_user_error(fails: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"logger\.memory cannot log to http://nowhere \(no connection in {fails}\)"):
        Memory(tmp_path, fails).log_setup(make_setup())
    assert read_tracker_ids(tmp_path) == {}


@pytest.mark.parametrize("fails", ["metrics {'val/loss': 0.5} 1", "images", "results", "end False"])
def test_a_tracker_that_fails_later_is_not_used_again(
    fails: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Memory(tmp_path, fails)
    tracker.log_setup(make_setup())
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            tracker.log_metrics({"val/loss": 0.5, "epoch": 0}, 9)
            tracker.log_images({"test/roc": b""}, 1)
            tracker.log_results(RESULTS, make_setup(), 1)
            tracker.close()
    assert tracker.calls[-1] == fails
    (record,) = caplog.records
    for words in ("Memory failed", "continues without it", str(tmp_path / "results.json")):
        assert words in record.message


def test_a_bug_is_not_hidden(tmp_path: Path) -> None:
    tracker = Memory(tmp_path, "images", ZeroDivisionError)
    tracker.log_setup(make_setup())
    with pytest.raises(ZeroDivisionError):
        tracker.log_images({}, 1)


def test_a_failed_run_is_marked(tmp_path: Path) -> None:
    tracker = Memory(tmp_path)
    tracker.log_setup(make_setup())
    tracker.finalize("failed")
    tracker.close()
    assert tracker.calls[2:] == ["end True"]


def test_other_loggers_receive_hyperparameters_and_final_metrics(tmp_path: Path) -> None:
    csv_logger = CSVLogger(tmp_path, name="", version="")
    loggers = [RunLogger(str(tmp_path / "run")), csv_logger]
    own, other = run_loggers(Trainer(logger=loggers, accelerator="cpu", enable_checkpointing=False))
    assert (own, isinstance(other, OtherLogger)) == (loggers[0], True)
    other.log_setup(make_setup())
    csv_logger.log_metrics({"val/loss": 0.5}, 0)
    other.log_images({"test/roc": b""}, 3)
    other.log_results(RESULTS, make_setup(), 3)
    other.close()
    csv_logger.finalize("success")
    assert yaml.safe_load((tmp_path / "hparams.yaml").read_text()) == make_setup().nested
    with (tmp_path / "metrics.csv").open(newline="") as file:
        row = list(csv.DictReader(file))[-1]
    assert {name: float(row[name]) for name in final_metrics(RESULTS)} == final_metrics(RESULTS)
    assert row["step"] == "3"


def test_all_loggers_of_conf_have_the_interface() -> None:
    tracker = ("run", "project", "name")
    loggers = [RunLogger("run"), CSVRunLogger("run"), MLFlowRunLogger(*tracker, "x"), WandbRunLogger(*tracker, "x")]
    trainer = Trainer(logger=list(loggers), accelerator="cpu", enable_checkpointing=False)
    assert run_loggers(trainer) == loggers


def test_hyperparameters_are_those_of_the_configuration(compose_run: Compose) -> None:
    cfg = compose_run("model=vgg16", "optimizer=adam", "optimizer.lr=0.25", "seed=3", "augment=light")
    setup = describe_setup(cfg, Trainer(accelerator="cpu", logger=False, enable_checkpointing=False), {"a": 1.0})
    shown = {"model": "vgg16", "optimizer": "adam", "lr": 0.25, "seed": 3, "batch_size": 16, "image_size": 32}
    assert setup.hyperparameters.items() >= {**shown, "epochs": 20, "precision": "32-true"}.items()
    assert setup.hyperparameters["overrides"] == "trainer=cpu augment=light"
    assert (setup.settings["optimizer.lr"], setup.config["optimizer"]["lr"]) == (0.25, 0.25)
    assert yaml.safe_load(setup.yaml)["optimizer"]["lr"] == 0.25
    assert not [key for key in setup.settings if key.startswith(("logger", "paths"))]  # a resumed run may change these
