import csv
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.dicom_files import dicom

from pneumo import cli
from pneumo.audit.dataset import read_dataset
from pneumo.audit.findings import Findings, audit
from pneumo.audit.inspection import to_json
from pneumo.audit.verdicts import assess
from pneumo.common.files import escape_path
from pneumo.data.image_tree import read_tree
from pneumo.data.index import file_path, read_name
from pneumo.data.selection import DataSelection
from pneumo.errors import ConfigError, DataError
from pneumo.reporting.assessment import Verdict

Row = dict[str, str]


def list_rows(root: Path) -> list[Row]:
    """List the images of a tree as rows of a table."""
    files = [path.relative_to(root) for path in sorted(root.glob("*/*/*.*"), reverse=True)]
    return [{"file": escape_path(file.as_posix()), "label": file.parts[1], "split": file.parts[0]} for file in files]


def write_table(path: Path, rows: Iterable[Row]) -> Path:
    rows = list(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    return path


def select(root: Path, rows: Iterable[Row], **options: object) -> DataSelection:
    return DataSelection([root], [write_table(root.parent / "labels.csv", rows)], **options)  # type: ignore[arg-type]


def assess_table(root: Path, rows: Iterable[Row]) -> tuple[Findings, list[Verdict]]:
    findings = audit(read_dataset(select(root, rows)))
    return findings, assess(findings)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["pneumo", "audit", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


@pytest.mark.parametrize("classes", [(), ("PNEUMONIA", "NORMAL")])
def test_a_table_has_the_findings_of_the_tree_that_it_lists(
    classes: tuple[str, ...], phantoms: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(phantoms, tmp_path / "data"))
    shutil.copy(min(root.glob("train/PNEUMONIA/*")), root / "test" / "PNEUMONIA" / "copy.jpeg")
    broken = max(root.glob("train/NORMAL/*"))
    broken.write_bytes(broken.read_bytes()[:900])
    selection = select(root, [row | {"patient": read_name(Path(row["file"]).name)[0] or ""} for row in list_rows(root)])
    tree = read_dataset(selection, classes)
    assert replace(tree, table=None) == read_tree(root, classes)
    documents = []
    for each in (tree, read_tree(root, classes)):
        findings = audit(each)
        documents.append(json.loads(to_json(findings, assess(findings))))
    assert documents[0].pop("table") == str(selection.labels[0])
    assert documents[1].pop("table") is None
    assert documents[0] == documents[1]
    assert {"unreadable", "copies_across_splits"} <= {verdict["check"] for verdict in documents[0]["verdicts"]}


def test_a_table_without_splits_is_one_split(phantoms: Path, tmp_path: Path) -> None:
    rows = [{"file": row["file"], "label": row["label"]} for row in list_rows(phantoms)]
    table = write_table(tmp_path / "labels.csv", rows)
    tree = read_dataset(DataSelection([phantoms], [table]))
    assert (tree.splits, len(tree.files), tree.classes) == (("all",), 112, ("NORMAL", "PNEUMONIA"))


def test_patients_of_the_column_are_found_in_two_splits(phantoms: Path, tmp_path: Path) -> None:
    shutil.copytree(phantoms, root := tmp_path / "data")
    rows = [row | {"patient": f"P{number:03d}"} for number, row in enumerate(list_rows(root))]
    first, other = (next(row for row in rows if row["split"] == split) for split in ("train", "test"))
    other["patient"] = first["patient"]
    findings, verdicts = assess_table(root, rows)
    assert findings.patients.shared == (first["patient"],)
    assert findings.patients.per_split == {"train": 64, "val": 16, "test": 32}
    assert first["patient"] in next(verdict.message for verdict in verdicts if verdict.check == "patients")


def test_patients_come_from_the_column_then_the_header(tmp_path: Path) -> None:
    (root := tmp_path / "scans").mkdir()
    names = ("person7_virus_1.dcm", "person8_virus_2.dcm", "c.dcm", "d.dcm", "e.dcm")
    for name in names:
        pixels = np.random.default_rng(len(name)).integers(0, 255, (64, 64)).astype(np.uint8)
        (root / name).write_bytes(dicom(pixels, PatientID="" if name == "e.dcm" else "SECRET"))
    patients = ("P1", "", "", "", "")
    labels = ("A", "A", "B", "B", "B")
    rows = [
        {"file": name, "label": label, "patient": patient}
        for name, label, patient in zip(names, labels, patients, strict=True)
    ]
    findings, verdicts = assess_table(root, rows)
    assert {file.path: (file.patient, file.subtype) for file in findings.tree.files} == {
        "person7_virus_1.dcm": ("P1", "viral"),
        "person8_virus_2.dcm": ("header-0001", "viral"),
        "c.dcm": ("header-0001", "none"),
        "d.dcm": ("header-0001", "none"),
        "e.dcm": (None, "none"),
    }
    assert "SECRET" not in str(findings) + to_json(findings, verdicts)
    assert "1 of 5 images" in next(verdict.message for verdict in verdicts if verdict.check == "no_patients")


def test_omitted_rows_are_reported(phantoms: Path, tmp_path: Path) -> None:
    shutil.copytree(phantoms, root := tmp_path / "data")
    rows = list_rows(root)
    rows[0]["split"] = ""
    rows.append({"file": "train/NORMAL/gone.png", "label": "NORMAL", "split": "train"})
    findings, verdicts = assess_table(root, rows)
    assert findings.tree.omitted == tuple(
        sorted([(rows[0]["file"], "no split"), ("train/NORMAL/gone.png", "file not found")])
    )
    found = {(verdict.severity, verdict.message) for verdict in verdicts if verdict.check == "omitted"}
    assert {severity for severity, _ in found} == {"error", "warning"}
    assert all(any(name in message for _, message in found) for name, _ in findings.tree.omitted)
    assert len(json.loads(to_json(findings, verdicts))["omitted"]) == 2
    selected = read_dataset(select(root, rows[1:-1]), ["NORMAL"])
    assert {reason for _, reason in selected.omitted} == {"not of a selected class"}
    assert len(selected.files) + len(selected.omitted) == 111


def test_missing_files_of_a_published_table_are_a_note(phantoms: Path, tmp_path: Path) -> None:
    shutil.copytree(phantoms, root := tmp_path / "data")
    findings = {"NORMAL": "No Finding", "PNEUMONIA": "Pneumonia"}
    rows = [{"Image Index": row["file"], "Finding Labels": findings[row["label"]]} for row in list_rows(root)]
    rows.append({"Image Index": "gone.png", "Finding Labels": "Pneumonia"})
    rows.append({"Image Index": "mass.png", "Finding Labels": "Mass"})
    result = audit(read_dataset(select(root, rows, preset="nih")))
    assert len(result.tree.files) == 112
    assert [name for name, _ in result.tree.omitted] == ["gone.png", "mass.png"]
    assert {verdict.severity for verdict in assess(result) if verdict.check == "omitted"} == {"note"}


def test_files_outside_of_the_folder_of_the_table_are_named_from_their_common_folder(
    phantoms: Path, tmp_path: Path
) -> None:
    shutil.copytree(phantoms, tmp_path / "real" / "data")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    os.symlink(tmp_path / "deep" / "er", tmp_path / "link")  # `link/..` is deep
    root = tmp_path / "real" / "data"
    rows = list_rows(root)
    rows.insert(1, {"file": "test/gone.png", "label": "NORMAL", "split": "test"})
    for number, row in enumerate(rows):
        row["file"] = f"../../real/data/{row['file']}" if number % 2 else str(root / row["file"])
    table = write_table(tmp_path / "link" / "labels.csv", rows)
    tree = read_dataset(DataSelection([table]))
    assert (tree.root, tree.omitted) == (root, (("test/gone.png", "file not found"),))
    assert tree.files == tuple(replace(file, patient=None) for file in read_tree(root).files)


@pytest.mark.parametrize(
    ("options", "error", "setting"),
    [
        ({"labels": []}, ConfigError, "No data"),
        ({"labels": ["labels.csv"] * 2}, ConfigError, "--labels"),
        ({"data": ["data"], "preset": "nih"}, ConfigError, "--preset nih"),
        ({"data": ["data"], "columns": {"file": "x"}}, ConfigError, "column file"),
        ({"data": ["data"], "mapping": {"x": "y"}}, ConfigError, "--map x=y"),
        ({"labels": ["labels.csv"], "mapping": {"MASS": "y"}}, ConfigError, "MASS=y"),
        ({"labels": ["labels.csv"], "columns": {"label": "diagnosis"}}, ConfigError, "label=diagnosis"),
        ({"labels": ["unlabelled.csv"]}, DataError, "no column label"),
        ({"labels": ["empty.csv"]}, DataError, "no rows"),
        ({"labels": ["missing.csv"]}, DataError, "not found"),
        ({"labels": ["nowhere.csv"]}, DataError, "nowhere.csv does not exist"),
    ],
)
def test_mistakes_name_the_setting(
    options: dict[str, object],
    error: type[Exception],
    setting: str,
    phantoms: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    os.symlink(phantoms, "data")
    rows = [row | {"file": f"data/{row['file']}"} for row in list_rows(phantoms)]
    write_table(Path("labels.csv"), rows)
    write_table(Path("unlabelled.csv"), [{"file": row["file"], "finding": "x"} for row in rows])
    write_table(Path("missing.csv"), [{"file": "gone.png", "label": "NORMAL"}])
    Path("empty.csv").write_text("file,label\n", encoding="utf-8")
    paths = {
        name: [Path(str(path)) for path in value] if isinstance(value, list) else value
        for name, value in options.items()
    }
    with pytest.raises(error, match=setting):
        read_dataset(DataSelection(**paths))  # type: ignore[arg-type]


@pytest.mark.parametrize("classes", [["NORMAL", "MASS"], ["NORMAL", "NORMAL"]])
def test_classes_must_be_distinct_labels_of_the_table(classes: list[str], phantoms: Path, tmp_path: Path) -> None:
    shutil.copytree(phantoms, root := tmp_path / "data")
    with pytest.raises(DataError, match=f"--classes {','.join(classes)}"):
        read_dataset(select(root, list_rows(root)), classes)


@pytest.mark.parametrize(
    "form",
    [lambda root, table: [root, "--labels", table], lambda _, table: ["--labels", table], lambda _, table: [table]],
)
def test_the_command_reads_tables_and_overwrites_no_input(
    form: Callable[[Path, Path], list[object]],
    phantoms: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(phantoms, root := tmp_path / "data")
    first = file_path(root, list_rows(root)[-1]["file"])
    shutil.copy(first, scan := tmp_path / "page.html")  # an image whose suffix is that of an output
    rows = [{"file": str(scan), "label": "odd"}]
    rows += [{"file": str(root / row["file"]), "label": row["label"]} for row in list_rows(root)]
    table = write_table(root / "labels.csv", rows)
    for option, target in (("--json", table), ("--html", scan), ("--json", first)):
        content = target.read_bytes()
        assert run(monkeypatch, *form(root, table), option, target) == 1
        assert f"{option} {target} would overwrite an input" in capsys.readouterr().err
        assert target.read_bytes() == content
    page, document = tmp_path / "audit.html", tmp_path / "audit.json"
    options = ("--map", "odd=PNEUMONIA", "--html", page, "--json", document)
    assert run(monkeypatch, *form(root, table), *options) == 0
    assert "Audit of labels.csv" in page.read_text(encoding="utf-8")
    content = json.loads(document.read_text(encoding="utf-8"))
    assert (content["images"], content["classes"], content["table"]) == (113, ["NORMAL", "PNEUMONIA"], str(table))
    assert run(monkeypatch, *form(root, table), "--classes", "NORMAL,MASS") == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
