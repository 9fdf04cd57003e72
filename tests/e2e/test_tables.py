"""Runs on a label table with three classes, two sites, DICOM and PNG files and unknown patients."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import Compose, read_metrics
from helpers.mixed_tables import CLASSES, write_mixed_table
from lightning import Trainer

from pneumo.cli.commands import report
from pneumo.runs.prediction_files import read_predictions, read_table
from pneumo.runs.results import read_finished
from pneumo.runs.split_files import find_table_images, read_splits
from pneumo.training.callbacks import SeedEveryEpoch
from pneumo.training.run import run

_OPTIONS = (f"data.classes=[{','.join(CLASSES)}]", "data.val_fraction=0.25", "model=efficientnet_lite0", "epochs=2")


class _Stopped(Exception):  # noqa: N818 (not an error)
    pass


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_mixed_table(tmp_path / "data")


def _stop(_: SeedEveryEpoch, trainer: Trainer, *__: object) -> None:
    if trainer.current_epoch == 1:
        raise _Stopped


def _train(compose: Compose, table: Path, folder: str, *overrides: str) -> Mapping[str, Any]:
    return run(compose("data=table", f"data.table={table}", "data.root=null", *_OPTIONS, *overrides, folder=folder))


@pytest.mark.slow
def test_a_mixed_table_trains_resumes_and_leaves_a_site_out_without_revealing_patients(
    table: Path,
    compose_run: Compose,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.INFO)
    results = _train(compose_run, table, "whole")
    assert (results["task"], results["threshold_rule"], results["split"]) == ("multiclass", "likeliest", "patient")
    assert results["test_auroc_bacterial_viral"] == -1

    with monkeypatch.context() as patch:
        patch.setattr("pneumo.training.checkpoints.PAUSE", 0)
        patch.setattr(SeedEveryEpoch, "on_train_epoch_start", _stop)
        with pytest.raises(_Stopped):
            _train(compose_run, table, "resumed")
    last = tmp_path / "resumed" / "checkpoints" / "last.ckpt"
    _train(compose_run, table, "resumed", f"ckpt_path={last}")
    for name in ("predictions.csv", "validation.csv", "splits.csv"):
        assert (tmp_path / "resumed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert read_metrics(tmp_path / "resumed") == read_metrics(tmp_path / "whole")

    _train(compose_run, table, "site", "data.split=site", "data.site=B")
    _check_files(tmp_path / "site", tmp_path / "data")
    report([tmp_path / "whole"])
    logged = caplog.text + "".join(capfd.readouterr())
    assert "108 images from the column patient, 12 from DICOM headers, 0 unknown" in logged
    assert "SECRET" not in logged
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".dcm"]
    assert len(written) > 70
    assert [path for path in written if b"SECRET" in path.read_bytes()] == []


def _check_files(folder: Path, root: Path) -> None:
    rows = {row["path"]: row for row in read_splits(folder)}
    assert {row["site"] for row in rows.values() if row["split"] == "test"} == {"B"}
    assert {row["site"] for row in rows.values() if row["split"] != "test"} == {"A"}
    (patient,) = {row["patient"] for row in rows.values() if row["path"].startswith("images/9-")}
    assert patient.startswith("header-")
    predictions = read_table(folder / "predictions.csv")
    assert predictions.classes == CLASSES
    assert predictions.extra["age"] == tuple(rows[path]["age"] for path in predictions.paths)
    assert set(predictions.extra["site"]) == {"B"}
    read = read_predictions(folder, read_finished(folder))
    assert read.patients == tuple(rows[path]["patient"] for path in predictions.paths)
    assert all(path.is_file() for path in find_table_images(folder, root, read.paths))
