import csv
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml
from helpers.commands import Compose
from helpers.run_files import RESULTS
from helpers.setups import make_setup
from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger

from pneumo.training.csv_logger import CSVRunLogger
from pneumo.training.loggers import RunLogger
from pneumo.training.mlflow_logger import MLFlowRunLogger
from pneumo.training.tracking import (
    OtherLogger,
    by_epoch,
    closing_loggers,
    describe_setup,
    final_metrics,
    run_loggers,
)
from pneumo.training.wandb_logger import WandbRunLogger


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


def test_other_loggers_receive_hyperparameters_and_final_metrics(tmp_path: Path) -> None:
    csv_logger = CSVLogger(tmp_path, name="", version="")
    loggers = [RunLogger(str(tmp_path / "run")), csv_logger]
    own, other = run_loggers(Trainer(logger=loggers, accelerator="cpu", enable_checkpointing=False))
    assert isinstance(own, RunLogger)
    assert isinstance(other, OtherLogger)
    other.log_setup(make_setup())
    csv_logger.log_metrics({"val/loss": 0.5}, 0)
    other.log_images({"test/roc": b""}, 3)
    other.log_results(RESULTS, make_setup(), 3)
    other.close(failed=False)
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
    assert not [each for each in run_loggers(trainer) if isinstance(each, OtherLogger)]


def test_hyperparameters_are_those_of_the_configuration(compose_run: Compose) -> None:
    cfg = compose_run("model=vgg16", "optimizer=adam", "optimizer.lr=0.25", "seed=3", "augment=light")
    setup = describe_setup(cfg, Trainer(accelerator="cpu", logger=False, enable_checkpointing=False), {"a": 1.0})
    shown = {"model": "vgg16", "optimizer": "adam", "lr": 0.25, "seed": 3, "batch_size": 16, "image_size": 32}
    assert setup.hyperparameters.items() >= {**shown, "epochs": 20, "precision": "32-true"}.items()
    assert setup.hyperparameters["overrides"] == "trainer=cpu augment=light"
    assert (setup.settings["optimizer.lr"], setup.config["optimizer"]["lr"]) == (0.25, 0.25)
    assert yaml.safe_load(setup.yaml)["optimizer"]["lr"] == 0.25
    assert not [key for key in setup.settings if key.startswith(("logger", "paths"))]  # a resumed run may change these


@pytest.mark.parametrize("failed", [False, True])
def test_loggers_are_closed_at_the_end_of_a_run(failed: bool, tmp_path: Path) -> None:
    closed: list[bool] = []

    class Recorder(RunLogger):
        def close(self, failed: bool) -> None:
            closed.append(failed)

    trainer = Trainer(logger=Recorder(str(tmp_path)), accelerator="cpu")
    with pytest.raises(KeyboardInterrupt) if failed else nullcontext(), closing_loggers(trainer):
        assert not closed
        if failed:
            raise KeyboardInterrupt
    assert closed == [failed]
