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
def test_trials_are_identified_by_the_configuration_or_else_by_the_name(
    recorded: str | None, trial: bool, tmp_path: Path
) -> None:
    write_run(tmp_path / "trial-000", "resnext", "sgd", 0, wrong=9)
    write_failed_run(tmp_path / "trial-001", "resnext", "sgd")
    for run in tmp_path.iterdir():
        if recorded is not None:
            (run / ".hydra").mkdir()
            (run / ".hydra" / "config.yaml").write_text(recorded)
    assert [run.trial for run in collect([tmp_path])] == [trial, trial]


def test_only_one_configuration_per_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def read_config(folder: Path) -> dict[str, object]:
        read.append(folder)
        return {"sweep": {"trials": 20 if folder.parent.name == "search" else None}}

    monkeypatch.setattr("pneumo.runs.collection.read_config", read_config)
    for folder in ("search/trial-000", "search/trial-001", "grid/trial-a", "grid/trial-b"):
        write_run(tmp_path / folder, "resnext", "sgd", 0, wrong=9)
    runs = collect([tmp_path / "search", tmp_path / "grid"])
    assert {(run.folder.parent.name, run.trial) for run in runs} == {("search", True), ("grid", False)}
    assert len(read) == 2


def test_a_run_with_another_name_is_not_a_trial(tmp_path: Path) -> None:
    write_run(tmp_path / "resnext-sgd-s0", "resnext", "sgd", 0, wrong=9)
    assert [run.trial for run in collect([tmp_path])] == [False]
