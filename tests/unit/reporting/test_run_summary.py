from pathlib import Path

import numpy as np
import pytest
from helpers.run_files import RESULTS, write_outputs, write_run

from pneumo.metrics.subtypes import NO_IMAGE
from pneumo.reporting.leaderboard import write_leaderboard
from pneumo.reporting.run_report import Explanations, read_run, write_run_page
from pneumo.reporting.run_summary import report
from pneumo.runs.result_rules import RESULT_NAMES
from pneumo.runs.results import Results
from pneumo.runs.status import EVENTS

FINISHED: Results = {**dict.fromkeys(RESULT_NAMES, 0.5), **RESULTS, "status": "done", "collapsed": False}


def test_summary_has_ranked_metrics_with_intervals_and_the_paths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics: Results = {"test_auroc": 0.91234, "test_auroc_ci_low": 0.8, "test_auroc_ci_high": 0.95}
    (tmp_path / f"events{EVENTS}").touch()
    report(tmp_path, {**FINISHED, **metrics, "test_sensitivity_viral": NO_IMAGE})
    lines = capsys.readouterr().out.splitlines()
    (auroc,) = [line for line in lines if line.strip().startswith("AUROC")]
    assert auroc.split()[1:5] == ["0.9123", "0.800", "to", "0.950"]
    names = [line.split()[0] for line in lines if line.strip()]
    assert "bacterial" in names
    assert not {"viral", "F1"} & {*names}
    assert names[-5:] == ["results", "predictions", "checkpoint", "log", "curves"]


def test_summary_of_a_run_without_tensorboard_does_not_name_its_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report(tmp_path, FINISHED)
    assert "tensorboard" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("state", "warning"), [({"status": "partial"}, "PARTIAL"), ({"collapsed": True}, "COLLAPSED"), ({}, None)]
)
def test_partial_and_collapsed_runs_are_warned_of(
    state: Results, warning: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report(tmp_path, {**FINISHED, **state})
    assert [record.message.split(":")[0] for record in caplog.records] == ([warning] if warning else [])


@pytest.mark.parametrize("predicted", [0, 1])
def test_summary_leaderboard_and_report_describe_a_collapsed_run_in_the_same_words(
    predicted: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, label = tmp_path / "study" / "resnext-sgd-s0", np.arange(624) % 8 >= 3
    write_run(folder, "resnext", "sgd", 0, wrong=0, collapsed=True)
    write_outputs(folder / "predictions.csv", label, np.full(624, 0.1 + 0.8 * predicted))
    run = read_run(folder)
    assert run.results["test_accuracy"] == (label == predicted).mean()  # the proportion of the predicted class
    report(folder, run.results)
    write_leaderboard([folder.parent], tmp_path)
    write_run_page(run, Explanations({}, {}, "no maps", None, None), tmp_path / "report.html")
    pages = [(tmp_path / name).read_text() for name in ("leaderboard.md", "leaderboard.html", "report.html")]
    note = "every test image got the same predicted class; the accuracy is just the proportion of that class."
    for text in (caplog.text, *pages):
        assert note in text
