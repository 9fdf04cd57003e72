import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.run_files import write_failed_run, write_run
from rich.console import Console
from scipy.stats import binomtest
from sklearn.metrics import auc
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pneumo.cli.commands import report
from pneumo.errors import ConfigError
from pneumo.metrics.curves import roc
from pneumo.metrics.definitions import METRICS
from pneumo.reporting.comparison import compare, comparison_table
from pneumo.reporting.leaderboard import table_notes, write_leaderboard
from pneumo.reporting.leaderboard_table import columns, to_csv, to_markdown, to_terminal
from pneumo.reporting.rows import build_rows
from pneumo.runs.collection import collect
from pneumo.runs.prediction_files import read_predictions
from pneumo.runs.result_rules import RESULT_NAMES


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "study"
    write_run(folder / "resnext-sgd-s0", "resnext", "sgd", 0, wrong=30)
    write_run(folder / "resnext-sgd-s1", "resnext", "sgd", 1, wrong=42)
    write_run(folder / "vgg16-adam-s0", "vgg16", "adam", 0, wrong=234, collapsed=True)
    write_run(folder / "timm-adam-s0-lr0.1", "timm", "adam", 0, wrong=60)
    write_failed_run(folder / "googlenet-sgd-s0", "googlenet", "sgd")
    write_failed_run(folder / "googlenet-adam-s0", "googlenet", "adam", "running", "")
    return folder


def test_seeds_form_one_row_with_mean_and_deviation(study: Path) -> None:
    first = build_rows(collect([study]))[0]
    assert (first.first.model, len(first.runs), first.remark) == ("resnext", 2, "")
    accuracies = (1 - 30 / 624, 1 - 42 / 624)
    assert first.mean("test_accuracy") == pytest.approx(np.mean(accuracies))
    assert first.deviation("test_accuracy") == pytest.approx(np.std(accuracies, ddof=1))
    assert first.difference("test_accuracy") == pytest.approx(np.mean(accuracies) - 0.9503)
    interval = binomtest(624 - 36, 624).proportion_ci(method="wilson")
    assert first.interval() == pytest.approx((interval.low, interval.high))  # 624 images, not 2 x 624


def test_collapsed_and_unfinished_runs_are_marked_and_come_last(study: Path) -> None:
    found = {(row.first.model, row.first.optimizer): row.remark for row in build_rows(collect([study]))}
    assert list(found.items()) == [
        (("resnext", "sgd"), ""),
        (("timm", "adam"), ""),
        (("vgg16", "adam"), "collapsed"),
        (("googlenet", "adam"), "unfinished"),
        (("googlenet", "sgd"), "failed"),
    ]
    assert any("googlenet-sgd-s0 failed: no image" in note for note in table_notes(build_rows(collect([study]))))


def test_other_images_are_not_compared_with_the_study(tmp_path: Path) -> None:
    write_run(tmp_path / "a" / "resnext-sgd-s0", "resnext", "sgd", 0, wrong=3, images=64, data="synthetic")
    (row,) = build_rows(collect([tmp_path / "a"]))
    assert row.study is not None
    assert row.difference("test_accuracy") is None
    assert "without differences" in " ".join(table_notes([row]))


@pytest.mark.parametrize(("rank", "headers"), [(None, []), (0, ["NPV"]), (2, ["NPV"])])
def test_a_metric_with_a_rank_has_one_column(
    rank: int | None, headers: list[str], study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METRICS, "npv", METRICS["f1"]._replace(name="npv", title="NPV", rank=rank))
    titles = [column.title for column in columns(build_rows(collect([study])))]
    assert [title for title in titles if title == "NPV"] == headers
    assert len(titles) == len(set(titles))
    assert "accuracy" not in titles  # its column is "test accuracy"


def test_all_files_contain_every_run(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    write_leaderboard([study], out)
    with (out / "leaderboard.csv").open(newline="") as file:
        lines = {line["run"]: line for line in csv.DictReader(file)}
    assert len(lines) == 6
    assert float(lines["resnext-sgd-s1"]["test_accuracy"]) == pytest.approx(1 - 42 / 624)
    assert lines["resnext-sgd-s1"]["study_test_accuracy"] == "0.9503"
    assert (lines["googlenet-sgd-s0"]["state"], lines["googlenet-sgd-s0"]["reason"]) == ("failed", "no image")
    markdown = (out / "leaderboard.md").read_text()
    assert re.search(
        r"\| resnext \| sgd \| .*0\.9423 ± 0\.0136 \| 0\.921 to 0\.958 \| a \| 0\.9503 \| -0\.0080 \|", markdown
    )
    shown = capsys.readouterr().out
    for text in ("resnext", "vgg16", "collapsed", "failed", str(out / "leaderboard.html")):
        assert text in shown
    events = EventAccumulator(str(out / "leaderboard"))
    events.Reload()
    assert sorted(events.Tags()["images"]) == ["leaderboard/accuracy", "leaderboard/roc", "leaderboard/time"]
    assert {path.name for path in (out / "figures").iterdir()} >= {"accuracy.png", "roc.svg", "time.png"}


def test_the_page_is_self_contained(study: Path, tmp_path: Path) -> None:
    write_leaderboard([study], tmp_path)
    page = (tmp_path / "leaderboard.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert page.count("data:image/svg+xml;base64,") == 3
    assert page.count("<tr") == (1 + 5) + (1 + 2)  # the compared pair has a row for accuracy and one for AUROC


def test_reasons_are_escaped_in_the_page(tmp_path: Path) -> None:
    write_failed_run(tmp_path / "a" / "x", "vgg16", "sgd", reason="</td><script>alert(1)</script>")
    write_leaderboard([tmp_path / "a"], tmp_path)
    assert "<script>alert" not in (tmp_path / "leaderboard.html").read_text()


def test_several_sweeps_share_one_leaderboard(study: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "robust" / "resnext-sgd-s0", "resnext", "sgd", 0, wrong=20)
    found = build_rows(collect([study, tmp_path / "robust"]))
    assert [(row.first.sweep, row.first.model) for row in found][:2] == [("robust", "resnext"), ("study", "resnext")]
    assert to_markdown(found, [], "title").splitlines()[2].startswith("| sweep | network |")
    write_leaderboard([study, tmp_path / "robust"], tmp_path)


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_the_table_fits_the_terminal(study: Path, width: int) -> None:
    console = Console(width=width, record=True)
    console.print(to_terminal(build_rows(collect([study])), "title", console))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert ("sensitivity" in text) == ("specificity" in text) == (width == 200)


def test_the_area_under_the_roc_curve_is_the_auroc(study: Path) -> None:
    folder = study / "resnext-sgd-s0"
    results = json.loads((folder / "results.json").read_text())
    predictions = read_predictions(folder, results)
    assert predictions.classes == ("NORMAL", "PNEUMONIA")
    assert auc(*roc(predictions)) == pytest.approx(results["test_auroc"], abs=1e-6)
    assert predictions.positive.sum() == 390


def test_runs_with_different_settings_are_different_rows(tmp_path: Path) -> None:
    write_run(tmp_path / "a" / "resnext-sgd-s0", "resnext", "sgd", 0, wrong=30, settings_hash="1111", epochs=20)
    write_run(tmp_path / "a" / "resnext-sgd-s1", "resnext", "sgd", 1, wrong=42, settings_hash="2222", epochs=30)
    found = build_rows(collect([tmp_path / "a"]))
    assert [(row.setting, len(row.runs)) for row in found] == [("#1111", 1), ("#2222", 1)]
    notes = " ".join(table_notes(found))
    assert "different settings" in notes
    assert "epochs (20 and 30)" in notes


def test_duplicate_runs_count_once_and_sweeps_with_equal_names_are_separate(study: Path, tmp_path: Path) -> None:
    assert len(collect([study, study, study / "resnext-sgd-s0"])) == 6
    write_run(tmp_path / "other" / "study" / "resnext-sgd-s2", "resnext", "sgd", 2, wrong=20)
    found = build_rows(collect([study, tmp_path / "other" / "study"]))
    assert sorted(len(row.runs) for row in found if row.first.model == "resnext") == [1, 2]
    single = build_rows(collect([study / "resnext-sgd-s0", tmp_path / "other" / "study" / "resnext-sgd-s2"]))
    assert [len(row.runs) for row in single] == [1, 1]


def test_a_network_is_compared_across_sweeps_with_different_optimizers(tmp_path: Path) -> None:
    for optimizer, wrong in (("sgd", 60), ("adam", 70)):
        write_run(tmp_path / "study" / f"resnext-{optimizer}-s0", "resnext", optimizer, 0, wrong=wrong)
        write_run(tmp_path / "study" / f"vgg16-{optimizer}-s0", "vgg16", optimizer, 0, wrong=wrong)
    write_run(tmp_path / "robust" / "resnext-adamw-s0", "resnext", "adamw", 0, wrong=20)
    write_run(tmp_path / "robust" / "vgg16-sgd-s0", "vgg16", "sgd", 0, wrong=20)
    console = Console(width=160, record=True)
    console.print(comparison_table(compare(build_rows(collect([tmp_path / "study", tmp_path / "robust"]))), 160))
    pairs = set(re.findall(r"accuracy +robust (\w+) (\w+) +study \w+ (\w+)", console.export_text()))
    assert pairs == {("resnext", "adamw", "sgd"), ("resnext", "adamw", "adam"), ("vgg16", "sgd", "sgd")}


def test_several_runs_are_only_printed_and_a_single_run_gets_a_page(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(study.rglob("*"))
    report([study / "resnext-sgd-s0", study / "resnext-sgd-s1"])
    assert set(study.rglob("*")) == before
    assert "--output FOLDER" in capsys.readouterr().out
    report([study / "resnext-sgd-s0"])
    page = study / "resnext-sgd-s0" / "report.html"
    assert set(study.rglob("*")) - before == {page}
    assert "best.ckpt is not a file" in page.read_text()  # the rest of the page is complete
    assert "--output FOLDER" not in capsys.readouterr().out


def test_an_unwritable_output_is_an_error(study: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot be written to .*file.*--output"):
        report([study], tmp_path / "file")


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_without_runs_is_rejected(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="outputs/sweep/study"):
        collect([tmp_path / name])


def test_damaged_results_are_an_error(study: Path) -> None:
    (study / "resnext-sgd-s0" / "results.json").write_text("{")
    with pytest.raises(ConfigError, match=r"resnext-sgd-s0/results\.json is damaged"):
        collect([study])


def test_the_csv_has_all_results(study: Path) -> None:
    header = to_csv(collect([study])).splitlines()[0].split(",")
    assert set(RESULT_NAMES) <= set(header)
    assert len(header) == len(set(header))
