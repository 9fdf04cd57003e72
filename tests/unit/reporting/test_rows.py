from pathlib import Path

import pytest
from helpers.run_files import write_run

from pneumo.reporting.rows import STUDY, build_rows
from pneumo.runs.collection import collect
from pneumo.runs.status import Status, write_status


def test_failed_seeds_are_counted_in_the_remark(tmp_path: Path) -> None:
    write_run(tmp_path / "a" / "resnext-sgd-s0", "resnext", "sgd", 0, wrong=30)
    folder = tmp_path / "a" / "resnext-sgd-s1"
    folder.mkdir()
    write_status(folder, Status("now", "failed", "NaN", "TrainingError", "resnext", "sgd", 1, "study", "0.5"))
    (row,) = build_rows(collect([tmp_path / "a"]))
    assert row.remark == "1 of 2 failed"
    assert row.deviation("test_accuracy") is None


def test_study_values_match_the_paper() -> None:
    assert len(STUDY) == 12
    assert STUDY["resnext", "adagrad"] == (0.9711, 0.9551, 5567)
    assert sum(cell.test_accuracy == 0.6250 for cell in STUDY.values()) == 3


def test_trials_of_a_search_are_sorted_by_validation_loss(tmp_path: Path) -> None:
    for number, (wrong, loss) in enumerate(((10, 0.3), (60, 0.1), (30, 0.2))):
        write_run(tmp_path / "a" / f"trial-00{number}", "resnext", "sgd", 0, wrong=wrong, val_loss=loss)
    rows = build_rows(collect([tmp_path / "a"]))
    assert [row.first.setting for row in rows] == ["trial-001", "trial-002", "trial-000"]


def test_partial_tests_are_excluded_from_the_mean(tmp_path: Path) -> None:
    write_run(tmp_path / "a" / "resnext-sgd-s0", "resnext", "sgd", 0, wrong=30)
    write_run(tmp_path / "a" / "resnext-sgd-s1", "resnext", "sgd", 1, wrong=30, images=64, status="partial")
    (row,) = build_rows(collect([tmp_path / "a"]))
    assert (row.remark, row.deviation("test_accuracy")) == ("1 of 2 partial", None)
    assert row.mean("test_accuracy") == pytest.approx(1 - 30 / 624)


def test_runs_outside_sweeps_are_distinguished_by_their_time(tmp_path: Path) -> None:
    for time in ("2026-01-02_10-00-00", "2026-01-03_10-00-00"):
        write_run(tmp_path / "train" / "resnext-sgd-s0" / time, "resnext", "sgd", 0, wrong=20)
    rows = build_rows(collect([tmp_path / "train"]))
    assert sorted(row.setting for row in rows) == ["2026-01-02_10-00-00", "2026-01-03_10-00-00"]
