from pathlib import Path

import pytest
from helpers.run_files import write_failed_run, write_run

from pneumo.runs.collection import collect


@pytest.mark.parametrize(
    ("recorded", "trial"),
    [
        ("sweep: {trials: 20}", True),
        ("sweep: {trials: null}", False),  # a grid with hydra.sweep.subdir=trial-...
        ("seed: 0", False),  # train.py hydra.run.dir=trial-...
        ("", False),
        ("[", True),
        (None, True),
    ],
)
def test_a_trial_is_a_run_of_a_search_and_by_its_name_where_nothing_is_recorded(
    recorded: str | None, trial: bool, tmp_path: Path
) -> None:
    write_run(tmp_path / "trial-000", "resnext", "sgd", 0, wrong=9)
    write_failed_run(tmp_path / "trial-001", "resnext", "sgd")
    for run in tmp_path.iterdir():
        if recorded is not None:
            (run / ".hydra").mkdir()
            (run / ".hydra" / "config.yaml").write_text(recorded)
    assert [run.trial for run in collect([tmp_path])] == [trial, trial]


def test_one_configuration_tells_of_all_trials_of_a_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def read_config(folder: Path) -> dict[str, object]:
        read.append(folder)
        return {"sweep": {"trials": 20 if folder.parent.name == "search" else None}}

    monkeypatch.setattr("pneumo.runs.collection.read_config", read_config)
    for place in ("search/trial-000", "search/trial-001", "grid/trial-a", "grid/trial-b"):
        write_run(tmp_path / place, "resnext", "sgd", 0, wrong=9)
    found = collect([tmp_path / "search", tmp_path / "grid"])
    assert {(run.folder.parent.name, run.trial) for run in found} == {("search", True), ("grid", False)}
    assert len(read) == 2


def test_another_name_is_no_trials(tmp_path: Path) -> None:
    write_run(tmp_path / "resnext-sgd-s0", "resnext", "sgd", 0, wrong=9)
    assert [run.trial for run in collect([tmp_path])] == [False]
