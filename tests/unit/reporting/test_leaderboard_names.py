"""Hostile names of runs, sweeps and classes in reports and figures."""

import csv
import io
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers.hostile_names import CONTROLS, MARKUP, NAMES, formulas, is_harmless
from helpers.run_files import write_run
from helpers.setups import make_setup
from markdown_it import MarkdownIt
from scipy.special import logit
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pneumo.data.index import Radiograph
from pneumo.metrics.predictions import Predictions
from pneumo.reporting.figures.charts import draw_confusion, draw_scores
from pneumo.reporting.figures.run_figures import draw_predictions, select_examples
from pneumo.reporting.figures.style import save
from pneumo.reporting.leaderboard import write_leaderboard
from pneumo.reporting.run_summary import report
from pneumo.runs.prediction_files import read_table, write_predictions
from pneumo.runs.result_rules import RESULT_NAMES
from pneumo.runs.results import Results
from pneumo.runs.split_files import read_splits, write_splits
from pneumo.runs.status import EVENTS
from pneumo.training.loggers import RunLogger


def test_hostile_names_are_escaped_in_all_leaderboard_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = tmp_path / f"=sweep{MARKUP.replace('/', '')}{CONTROLS}"
    for seed, model in enumerate((f"=m{MARKUP}", f"@m{MARKUP}")):
        folder = sweep / f"-r{seed}[/y]|<b>$^$\x1b[7m"
        write_run(folder, model, f"+o{MARKUP}", seed, wrong=30 + seed, data=f"=d{MARKUP}")
    write_leaderboard([sweep], tmp_path / "board")
    printed = capsys.readouterr().out
    assert is_harmless(printed)
    assert f"=m{MARKUP}" in printed.replace("\n", "")
    for name in ("leaderboard.csv", "comparisons.csv"):
        with (tmp_path / "board" / name).open(newline="", encoding="utf-8") as file:
            assert not [cell for row in csv.reader(file) for cell in formulas(row)]
    markdown = (tmp_path / "board" / "leaderboard.md").read_text(encoding="utf-8")
    assert is_harmless(markdown)
    shown = MarkdownIt("commonmark").enable("table").render(markdown)
    assert not any(tag in shown for tag in ("<b>", "<code>", "<a "))
    assert shown.count("<tr>") == 3
    page = (tmp_path / "board" / "leaderboard.html").read_text(encoding="utf-8")
    assert is_harmless(page)
    assert "<b>" not in page
    for figure in (tmp_path / "board" / "figures").glob("*.svg"):
        ElementTree.parse(figure)


def test_markup_in_a_run_folder_is_printed_literally(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results: Results = {**dict.fromkeys(RESULT_NAMES, 0.5), "model": "[/y]", "epochs": 1, "collapsed": False}
    folder = tmp_path / "q[" / f"y]:smile:{CONTROLS}"
    folder.mkdir(parents=True)
    (folder / f"events{EVENTS}").touch()
    report(folder, results)
    printed = capsys.readouterr().out
    assert is_harmless(printed)
    assert printed.count("/q[/y]:smile:") == 5


@pytest.mark.parametrize("name", NAMES)
def test_names_in_csv_files_are_not_run_as_formulas(name: str, tmp_path: Path) -> None:
    classes = ("NORMAL", name, "'=x")
    label, probability = np.array([0, 1, 2]), np.eye(3) * 0.7 + 0.1
    margin = logit(probability)
    predictions = Predictions(probability, label, label, classes, margin, (name, "'=b", "c"))
    write_predictions(tmp_path / "predictions.csv", predictions)
    image = Radiograph(name, 1, "none", name, "test", 1, 1)
    write_splits(tmp_path / "splits.csv", {"test": [image]}, classes)
    for path in tmp_path.iterdir():
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
        assert not [cell for row in rows for cell in formulas(row)]
    table = read_table(tmp_path / "predictions.csv")
    assert (table.paths, table.classes, table.label) == ((name, "'=b", "c"), classes, classes)
    (line,) = read_splits(tmp_path)
    assert (line["path"], line["patient"], line["class"]) == (name, name, name)


def test_figures_and_tensorboard_show_any_name(tmp_path: Path) -> None:
    classes = (f"$x^$ {CONTROLS}", "$\\frac$")
    probability = np.linspace(0.05, 0.95, 12)
    predictions = Predictions.binary(
        probability, probability > 0.3, probability > 0.5, classes, tuple(map(str, range(12)))
    )
    results: Results = {**dict.fromkeys(RESULT_NAMES, 0.5), "model": classes[0], "optimizer": classes[1], "seed": 0}
    examples = select_examples(predictions, 0.5)
    images = np.zeros((len(examples.indices), 8, 8), np.uint8)
    figures = {"confusion": draw_confusion(predictions, results), "scores": draw_scores(predictions, results)}
    figures["examples"] = draw_predictions(predictions, examples, images, results)
    for svg in save(figures, tmp_path)["svg"].values():
        ElementTree.fromstring(svg)
        assert "$x^$" in svg.decode()  # in XML comments next to the glyph outlines
    logger = RunLogger(str(tmp_path / "events"))
    logger.log_predictions(replace(predictions, classes=("a", classes[0])), 1)
    logger.log_setup(make_setup(yaml=f"a: |\n  ```\n  {MARKUP}\n"))
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    tags = events.Tags()["tensors"]
    assert all(map(is_harmless, tags))
    (config,) = events.Tensors("config/text_summary")
    assert MarkdownIt("commonmark").render(config.tensor_proto.string_val[0].decode()).count("<pre>") == 1
