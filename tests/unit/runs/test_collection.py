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


def test_another_name_is_no_trials(tmp_path: Path) -> None:
    write_run(tmp_path / "resnext-sgd-s0", "resnext", "sgd", 0, wrong=9)
    assert [run.trial for run in collect([tmp_path])] == [False]
