import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.run_files import write_outputs, write_run
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from pneumo.cli.commands import report
from pneumo.errors import ConfigError
from pneumo.reporting.pooling import pool
from pneumo.reporting.rows import build_rows
from pneumo.runs.collection import collect

POSITIVE = np.arange(90) % 3 > 0


def write_fold(sweep: Path, index: int, part: int, shift: float = 0.0, **other: object) -> np.ndarray:
    folder = sweep / f"resnext-adam-s0-fold{index}"
    results: dict[str, Any] = {
        "task": "pneumonia",
        "threshold": 0.5,
        "threshold_rule": "fixed",
        "settings_hash": "same",
    }
    results |= {"best_epoch": 5, "epochs": 5, "temperature": 1.0, **other}
    write_run(folder, "resnext", "adam", 0, wrong=30, fold=index, folds=3, **results)
    margin = shift + 2 * POSITIVE - 1 + np.random.default_rng(index).normal(0, 1, 90)
    scores = expit(margin)
    write_outputs(folder / "validation.csv", POSITIVE, scores, margin if shift else None)
    text = (folder / "validation.csv").read_text()
    (folder / "validation.csv").write_text(text.replace("validation/", f"train/{part}-"))
    return margin if shift else scores


def test_folds_form_one_row_and_their_held_out_images_are_pooled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = np.concatenate([write_fold(tmp_path / "kfold", index, index) for index in range(3)])
    rows = build_rows(collect([tmp_path / "kfold"]))
    assert [len(row.runs) for row in rows] == [3]
    (pooled,) = pool(rows)
    assert (set(pooled.fold), len(pooled.fold), pooled.fold[90]) == ({0, 1, 2}, 270, 1)
    report([tmp_path / "kfold"])
    printed = re.sub(r"\s+", " ", capsys.readouterr().out)
    expected = roc_auc_score(np.tile(POSITIVE, 3), scores.astype(np.float32))
    assert all(part in printed for part in ("3 folds", "270 held-out", f"AUROC {expected:.4f}"))
    with (tmp_path / "kfold" / "folds.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["fold"] for line in lines] == ["0"] * 90 + ["1"] * 90 + ["2"] * 90
    assert {line["label"] for line in lines} == {"NORMAL", "PNEUMONIA"}


def test_missing_folds_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in (0, 2):
        write_fold(tmp_path / "kfold", index, index)
    report([tmp_path / "kfold"])
    printed = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "pooled over 2 folds" in printed
    assert "Missing: fold 1." in printed
    assert "optimistic" not in printed


def test_overlapping_folds_are_rejected(tmp_path: Path) -> None:
    for index in range(2):
        write_fold(tmp_path / "kfold", index, 0)
    with pytest.raises(ConfigError, match="folds of seed 0 have held out the same images"):
        pool(build_rows(collect([tmp_path / "kfold"])))


def test_selection_on_held_out_images_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(3):
        write_fold(tmp_path / "kfold", index, index, best_epoch=3 + index, threshold_rule="sensitivity")
    report([tmp_path / "kfold"])
    assert "selected its epoch and threshold on its held-out images" in re.sub(r"\s+", " ", capsys.readouterr().out)


def test_pooled_folds_rank_by_the_margin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    margins = np.concatenate([write_fold(tmp_path / "kfold", index, index, shift=40.0) for index in range(3)])
    (pooled,) = pool(build_rows(collect([tmp_path / "kfold"])))
    assert pooled.predictions.margin == pytest.approx(margins)
    report([tmp_path / "kfold"])
    expected = roc_auc_score(np.tile(POSITIVE, 3), margins)
    assert f"AUROC {expected:.4f}" in re.sub(r"\s+", " ", capsys.readouterr().out)
    with (tmp_path / "kfold" / "folds.csv").open(newline="") as file:
        assert [float(line["logit_margin"]) for line in csv.DictReader(file)] == pytest.approx(margins)
