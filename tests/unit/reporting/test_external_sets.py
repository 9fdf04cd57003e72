import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rich
from helpers.external_tests import draw_external, draw_subtypes, external_test, record
from helpers.hostile_names import CONTROLS, MARKUP, formulas, is_harmless
from helpers.run_files import write_failed_run, write_run
from markdown_it import MarkdownIt
from rich.console import Console

from pneumo.metrics.estimation import mean_auroc_interval
from pneumo.reporting.external_sets import ExternalSets, add_external_sets
from pneumo.reporting.leaderboard import write_leaderboard
from pneumo.reporting.leaderboard_table import columns, to_csv, to_markdown, to_terminal
from pneumo.reporting.rows import build_rows
from pneumo.runs.collection import collect


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two seeds of one configuration, one run of another, and a failed run."""
    folder = tmp_path / "study"
    for seed in (0, 1):
        write_run(folder / f"resnext-sgd-s{seed}", "resnext", "sgd", seed, wrong=30 + seed)
    write_run(folder / "vgg16-adam-s0", "vgg16", "adam", 0, wrong=60)
    write_failed_run(folder / "googlenet-sgd-s0", "googlenet", "sgd")
    return folder


def read(sweep: Path) -> ExternalSets:
    return add_external_sets(build_rows(collect([sweep])))


def read_lines(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def test_seeds_have_the_interval_of_their_mean_on_the_same_images(sweep: Path) -> None:
    seeds = [draw_external(seed) for seed in (0, 1)]
    reverse = seeds[1].take(np.arange(len(seeds[1].label))[::-1])
    record(sweep / "resnext-sgd-s0", "nih", seeds[0])
    record(sweep / "resnext-sgd-s1", "nih", reverse)  # in another order, with other numbers of patients
    first, second, failed = read(sweep).rows
    values = [external_test("", each).metrics["auroc"].value for each in seeds]
    found = first.external["nih"]
    assert found.mean == pytest.approx(np.mean(values))
    assert found.runs == 2
    assert found.deviation == pytest.approx(np.std(values, ddof=1))
    assert found.interval == pytest.approx(mean_auroc_interval(seeds, 0))
    independent = [replace(each, patients=()) for each in seeds]
    assert found.interval != pytest.approx(mean_auroc_interval(independent, 0))
    assert (second.external, failed.external) == ({}, {})


def test_a_single_run_has_its_recorded_interval(sweep: Path) -> None:
    record(sweep / "vgg16-adam-s0", "nih", draw_external(2))
    external = read(sweep)
    expected = external_test("nih", draw_external(2)).metrics["auroc"]
    found = external.rows[1].external["nih"]
    assert (found.mean, found.deviation, found.interval) == (expected.value, None, tuple(expected[1:]))
    assert [(each.name, each.images, each.patients) for each in external.sets] == [("nih", 120, 40)]
    assert external.sets[0].aurocs == {sweep / "vgg16-adam-s0": expected}


def test_several_classes_have_a_mean_and_no_interval_of_several_seeds(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path / "a" / f"resnext-sgd-s{seed}", "resnext", "sgd", seed, wrong=30, task="subtype")
        record(tmp_path / "a" / f"resnext-sgd-s{seed}", "nih", draw_subtypes(seed))
    values = [external_test("", draw_subtypes(seed)).metrics["auroc"].value for seed in (0, 1)]
    (row,) = read(tmp_path / "a").rows
    assert row.external["nih"].mean == pytest.approx(np.mean(values))
    assert row.external["nih"].interval is None
    (single,) = read(tmp_path / "a" / "resnext-sgd-s0").rows
    assert single.external["nih"].interval is not None


def test_runs_on_other_images_are_left_out_with_a_note(sweep: Path) -> None:
    record(sweep / "resnext-sgd-s0", "nih", draw_external(0, images=90))
    record(sweep / "resnext-sgd-s1", "nih", draw_external(1))
    record(sweep / "vgg16-adam-s0", "nih", draw_external(2))
    external = read(sweep)
    assert [row.external["nih"].runs for row in external.rows[:2]] == [1, 1]
    notes = " ".join(external.notes)
    assert "Ignored external tests: nih of resnext-sgd-s0 (other images" in notes
    assert "AUROC, nih: resnext sgd has records of 1 of 2 runs only." in notes
    assert "120 images of 40 patients" in notes
    assert sweep / "resnext-sgd-s0" not in external.sets[0].aurocs


def test_a_set_of_one_class_has_no_column(sweep: Path) -> None:
    path = record(sweep / "vgg16-adam-s0", "ward", draw_external(0))
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **dict.fromkeys(("auroc", "auroc_ci_low", "auroc_ci_high"))}))
    external = read(sweep)
    assert (external.sets, external.rows[1].external) == ((), {})
    assert external.notes == ("Ignored external tests: ward of vgg16-adam-s0 (no AUROC, since a class is absent).",)


def test_stale_and_damaged_tests_are_named_and_ignored(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        record(sweep / f"resnext-sgd-s{seed}", "nih", draw_external(seed))
    write_run(sweep / "resnext-sgd-s0", "resnext", "sgd", 0, wrong=33)  # trained again
    damaged = record(sweep / "vgg16-adam-s0", "nih", draw_external(2))
    damaged.write_text("{")
    write_leaderboard([sweep], sweep)
    printed = " ".join(capsys.readouterr().out.split())
    assert "resnext-sgd-s0/external/nih.json (the run was trained again since; repeat pneumo evaluate" in printed
    assert "vgg16-adam-s0/external/nih.json (it is not valid JSON" in printed
    (row, other, _) = read(sweep).rows
    assert (row.external["nih"].runs, other.external) == (1, {})


def test_columns_are_side_by_side_and_complete(sweep: Path) -> None:
    record(sweep / "resnext-sgd-s0", "nih", draw_external(0))
    record(sweep / "resnext-sgd-s1", "rsna", draw_external(1))
    rows = read(sweep).rows
    titles = [column.title.replace("\xa0", " ") for column in columns(rows)]
    start = titles.index("AUROC")
    assert titles[start : start + 5] == [
        *("AUROC", "AUROC, nih", "AUROC, nih, 95 % interval", "AUROC, rsna", "AUROC, rsna, 95 % interval"),
    ]
    assert len(titles) == len(set(titles))
    lines = to_markdown(rows, [], "title").splitlines()
    estimate = external_test("nih", draw_external(0)).metrics["auroc"]
    assert f"| {estimate.value:.4f} | {estimate.low:.3f} to {estimate.high:.3f} |" in lines[4]


def test_columns_of_earlier_versions_do_not_move(sweep: Path) -> None:
    before = read_lines(to_csv(collect([sweep])))
    record(sweep / "resnext-sgd-s0", "nih", draw_external(0))
    record(sweep / "resnext-sgd-s0", "a,b", draw_external(1))
    runs = collect([sweep])
    after = read_lines(to_csv(runs, read(sweep).sets))
    assert [line[: len(before[0])] for line in after] == before
    assert after[0][len(before[0]) :] == [
        f"external_{end}:{name}" for name in ("a,b", "nih") for end in ("auroc", "auroc_ci_low", "auroc_ci_high")
    ]
    estimate = external_test("nih", draw_external(0)).metrics["auroc"]
    by_run = {line[1]: line for line in after}
    assert [float(cell) for cell in by_run["resnext-sgd-s0"][-3:]] == pytest.approx(list(estimate))
    assert by_run["resnext-sgd-s1"][-6:] == by_run["googlenet-sgd-s0"][-6:] == [""] * 6


@pytest.mark.parametrize(
    ("width", "expected"),
    [(60, []), (80, ["AUROC"]), (100, ["AUROC", "a_very_long"]), (130, ["AUROC", "a_very_long", "nih"])],
)
def test_narrow_terminals_drop_external_columns_after_less_important_ones(
    width: int, expected: list[str], sweep: Path
) -> None:
    for name in ("nih", "a_hospital_with_a_very_long_name_in_the_north"):
        record(sweep / "vgg16-adam-s0", name, draw_external(0))
    console = Console(width=width, record=True)
    console.print(to_terminal(read(sweep).rows, "title", console))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert [
        name for name in ("AUROC", "a_very_long", "nih", "time", "balanced", "difference") if name in text
    ] == expected


def test_the_figure_requires_an_external_set(sweep: Path, tmp_path: Path) -> None:
    write_leaderboard([sweep], tmp_path / "out")
    names = {path.name for path in (tmp_path / "out" / "figures").iterdir()}
    assert not any(name.startswith("external") for name in names)
    record(sweep / "resnext-sgd-s0", "nih", draw_external(0))
    write_leaderboard([sweep], tmp_path / "out")
    added = {path.name for path in (tmp_path / "out" / "figures").iterdir()} - names
    assert added == {"external.png", "external.svg"}
    page = (tmp_path / "out" / "leaderboard.html").read_text()
    assert page.count("data:image/svg+xml;base64,") == 4


def test_hostile_names_of_sets_are_escaped(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index, name in enumerate((f"=s{MARKUP}{CONTROLS}", f"@s{MARKUP}" + "x" * 300, "$\\frac$")):
        record(sweep / "resnext-sgd-s0", name, draw_external(index))
    rich.reconfigure(width=200)
    write_leaderboard([sweep], tmp_path / "out")
    rich.reconfigure()
    assert is_harmless(capsys.readouterr().out)
    for name in ("leaderboard.md", "leaderboard.html"):
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert is_harmless(text)
    assert "<b>" not in text
    markdown = (tmp_path / "out" / "leaderboard.md").read_text(encoding="utf-8")
    shown = MarkdownIt("commonmark").enable("table").render(markdown)
    assert not any(tag in shown for tag in ("<b>", "<code>", "<a "))
    table = (tmp_path / "out" / "leaderboard.csv").read_text(encoding="utf-8")
    assert not [cell for row in read_lines(table) for cell in formulas(row)]
    ElementTree.parse(tmp_path / "out" / "figures" / "external.svg")


def test_unfinished_runs_have_no_external_test(sweep: Path) -> None:
    record(sweep / "resnext-sgd-s0", "nih", draw_external(0))
    (sweep / "resnext-sgd-s0" / "results.json").unlink()
    assert read(sweep).sets == ()
