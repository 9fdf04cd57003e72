import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.external_tests import draw_external, draw_subtypes, external_test, record
from helpers.hostile_names import CONTROLS, NAMES, formulas, is_harmless
from helpers.run_files import write_outputs, write_run

from pneumo.errors import ConfigError
from pneumo.metrics.clusters import number_clusters
from pneumo.metrics.predictions import Predictions
from pneumo.runs.collection import collect
from pneumo.runs.external_tests import (
    ExternalTest,
    prepare_external_folder,
    read_external_tests,
    write_external_test,
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "sweep" / "resnext-sgd-s0"
    write_run(folder, "resnext", "sgd", 0, wrong=30)
    return folder


def read_one(run: Path) -> ExternalTest:
    (test,), ignored = read_external_tests(run)
    assert not ignored
    return test


def reason(run: Path) -> str:
    """Return why the only test of a run is ignored."""
    tests, ((_, found),) = read_external_tests(run)
    assert not tests
    return found


@pytest.mark.parametrize("predictions", [draw_external(0), draw_subtypes(0)], ids=["two classes", "three classes"])
def test_a_test_is_restored(predictions: Predictions, run: Path) -> None:
    written = external_test("nih", predictions)
    path = write_external_test(run, written)
    assert path == run / "external" / "nih.json"
    found = read_one(run)
    assert (found.name, found.split, found.images, found.patients) == ("nih", "test", 120, 40)
    assert (found.metrics, found.threshold) == (written.metrics, written.threshold)
    assert (found.predictions.classes, found.predictions.paths) == (predictions.classes, predictions.paths)
    for name in ("label", "predicted", "probability", "odds"):
        assert getattr(found.predictions, name) == pytest.approx(getattr(predictions, name), abs=1e-6), name
    for name, estimate in external_test("nih", found.predictions).metrics.items():
        assert estimate == pytest.approx(written.metrics[name], abs=1e-6), name  # intervals need the patients


def test_files_contain_numbers_instead_of_patients(run: Path) -> None:
    path = record(run, "nih", draw_external(0))
    text = path.read_text() + path.with_suffix(".csv").read_text()
    assert "Doe" not in text
    with path.with_suffix(".csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["path", "label", "probability", "prediction", "logit_margin", "patient"]
    numbers = number_clusters(draw_external(0).patients).tolist()
    assert [int(line["patient"]) for line in lines] == numbers


def test_a_class_without_images_has_no_auroc(run: Path) -> None:
    predictions = draw_external(0)
    ward = predictions.take(np.flatnonzero(predictions.positive))
    test = external_test("ward", predictions)
    metrics = {"sensitivity": test.metrics["sensitivity"]}
    write_external_test(run, replace(test, predictions=ward, metrics=metrics))
    assert read_one(run).metrics.keys() == {"sensitivity"}
    assert json.loads((run / "external" / "ward.json").read_text())["auroc_ci_low"] is None


def test_a_repeated_test_replaces_the_earlier_one(run: Path) -> None:
    record(run, "nih", draw_external(0))
    record(run, "nih", draw_external(1, images=90))
    assert read_one(run).images == 90
    assert len(list((run / "external").iterdir())) == 2


def test_a_test_of_earlier_weights_is_ignored(run: Path) -> None:
    path = record(run, "nih", draw_external(0))
    write_run(run, "resnext", "sgd", 0, wrong=31)
    assert read_external_tests(run) == ([], [(path, "the run was trained again since")])
    (run / "predictions.csv").unlink()
    assert "no readable predictions.csv" in reason(run)


@pytest.mark.parametrize("name", [*NAMES, "results", "status", ".hidden", "a/b", "../up", "x" * 400, CONTROLS, ""])
def test_any_name_of_a_set_has_safe_files(name: str, run: Path) -> None:
    path = record(run, name, draw_external(0))
    assert path.parent == run / "external"
    assert is_harmless(path.name)
    assert path.name not in ("results.json", "status.json")
    found = read_one(run)
    assert is_harmless(found.name)
    assert found.name
    assert [each.folder for each in collect([run.parent])] == [run]
    rows = list(csv.reader(io.StringIO(path.with_suffix(".csv").read_text(encoding="utf-8"), newline="")))
    assert not [cell for row in rows for cell in formulas(row)]


def test_names_that_differ_in_unsafe_characters_have_different_files(run: Path) -> None:
    names = ["a/b", "a b", "a_b", "a:b"]
    assert len({record(run, name, draw_external(0)) for name in names}) == 4
    assert [test.name for test in read_external_tests(run)[0]] == sorted(names)


def edit(**values: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def append_row(path: Path) -> None:
    table = path.with_suffix(".csv")
    table.write_text(table.read_text() + "new.png,NORMAL,0.5,NORMAL,0,99\n")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated JSON": (lambda path: path.write_text(path.read_text()[:100]), "not valid JSON"),
    "empty JSON": (lambda path: path.write_bytes(b""), "not valid JSON"),
    "binary JSON": (lambda path: path.write_bytes(b"\xff\xfe"), "not UTF-8"),
    "list": (lambda path: path.write_text("[]"), "not a mapping"),
    "no keys": (lambda path: path.write_text("{}"), "it has no schema"),
    "no CSV": (lambda path: path.with_suffix(".csv").unlink(), "CSV file does not exist"),
    "edited CSV": (append_row, "changed or is incomplete"),
    "name with a line break": (edit(name="a\nb"), "its name"),
    "empty name": (edit(name=""), "its name"),
    "AUROC above 1": (edit(auroc=1.5), "its auroc"),
    "AUROC of text": (edit(auroc="0.9"), "its auroc"),
    "no interval": (edit(auroc_ci_low=None), "its auroc"),
    "threshold of text": (edit(threshold="0.5"), "its threshold"),
    "a single class": (edit(classes=["NORMAL"]), "its classes"),
    "other classes": (edit(classes=["NORMAL", "COVID"]), "PNEUMONIA is unknown"),
    "more classes": (edit(classes=["NORMAL", "PNEUMONIA", "COVID"]), "classes differ"),
    "other numbers": (edit(images=5), "other numbers"),
    "no hash": (edit(csv_sha256="../x"), "its csv_sha256"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_test_is_ignored_with_a_reason(damage: str, run: Path) -> None:
    path = record(run, "nih", draw_external(0))
    change, expected = DAMAGES[damage]
    change(path)
    assert expected in reason(run)


def test_other_files_do_not_hide_a_test(run: Path) -> None:
    path = record(run, "nih", draw_external(0))
    copy = path.with_name("copy.json")
    copy.write_text(path.read_text())
    copy.with_suffix(".csv").write_text(path.with_suffix(".csv").read_text())
    (path.parent / ".pneumo-x.json").write_text("{")
    (path.parent / "folder.json").mkdir()
    tests, ignored = read_external_tests(run)
    assert [test.name for test in tests] == ["nih"]
    assert {each.name: text for each, text in ignored} == {
        "folder.json": "it is not a file",
        "nih.json": "another file has the same set",
    }


def test_a_run_without_tests_has_none(run: Path) -> None:
    assert read_external_tests(run) == ([], [])
    write_outputs(run / "validation.csv", np.array([True, False]), np.array([0.9, 0.1]))
    prepare_external_folder(run)
    assert read_external_tests(run) == ([], [])


def test_an_unwritable_folder_is_an_error(run: Path) -> None:
    (run / "external").touch()
    with pytest.raises(ConfigError, match=r"--record requires .*external"):
        prepare_external_folder(run)
