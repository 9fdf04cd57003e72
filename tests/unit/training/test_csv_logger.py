import csv
from pathlib import Path

import yaml
from helpers.run_files import RESULTS
from helpers.setups import make_setup

from pneumo.training.csv_logger import CSVRunLogger
from pneumo.training.tracking import final_metrics


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "csv" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def log_epoch(logger: CSVRunLogger, epoch: int, loss: float) -> None:
    for stage in ("val", "train"):
        logger.log_metrics({f"{stage}/loss": loss, "epoch": epoch - 1}, 99)
        logger.save()


def test_an_epoch_is_one_row_and_a_resumed_run_continues(tmp_path: Path) -> None:
    first = CSVRunLogger(str(tmp_path))
    first.log_setup(make_setup())
    log_epoch(first, 1, 0.5)
    log_epoch(first, 2, 0.4)  # killed before the checkpoint of this epoch
    resumed = CSVRunLogger(str(tmp_path))
    resumed.log_setup(make_setup())
    assert rows(tmp_path) == [
        {"epoch": "1", "val/loss": "0.5", "train/loss": "0.5"},
        {"epoch": "2", "val/loss": "0.4", "train/loss": "0.4"},
    ]
    log_epoch(resumed, 2, 0.3)
    resumed.log_metrics({"test/loss": 0.2, "epoch": 2}, 99)
    resumed.log_results(RESULTS, make_setup(), 2)
    first_row, last = rows(tmp_path)
    assert (first_row["epoch"], first_row["val/loss"], first_row["test/loss"]) == ("1", "0.5", "")
    assert (last["val/loss"], last["train/loss"], last["test/loss"]) == ("0.3", "0.3", "0.2")
    assert {name: float(last[name]) for name in final_metrics(RESULTS)} == final_metrics(RESULTS)
    assert yaml.safe_load((tmp_path / "csv" / "hparams.yaml").read_text()) == make_setup().nested
