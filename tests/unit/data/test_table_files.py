import os
from pathlib import Path

import pytest

from pneumo.data.label_table import LabelTable, read_label_table
from pneumo.data.option_style import COMMAND, PYTHON, TRAINING
from pneumo.data.table_files import locate_files
from pneumo.errors import DataError


def locate(root: Path, *lines: str, preset: str | None = None) -> list[str | None]:
    table = root.parent / "labels.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    files = locate_files(read_label_table(table, preset), root)
    return [None if file is None else os.path.relpath(file, root) for file in files]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    root.mkdir()
    return root


def create(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def test_paths_are_relative_to_the_root_or_absolute(root: Path) -> None:
    create(root, "a.png", "deep/b.png", "../c.png", "back\\slash.png")
    lines = (f"{root / 'a.png'},N", "deep/b.png,N", "../c.png,N", "back\\slash.png,N")
    assert locate(root, "file,label", *lines) == ["a.png", "deep/b.png", "../c.png", "back\\slash.png"]


def test_backslashes_separate_folders(root: Path) -> None:
    create(root, "deep/down/b.png")
    assert locate(root, "file,label", r"deep\down\b.png,N") == ["deep/down/b.png"]


def test_escaped_bytes_of_file_names_are_restored(root: Path) -> None:
    create(root, os.fsdecode(b"\xff.png"))
    assert locate(root, "file,label", r"\udcff.png,N") == [os.fsdecode(b"\xff.png")]


def test_missing_files_are_counted_and_named(root: Path) -> None:
    create(root, "a.png", "deep/x2.jpg")
    with pytest.raises(DataError) as error:
        locate(root, "file,label", "a.png,N", *(f"x{i}.png,N" for i in range(2, 7)))
    for part in ("5 of the 6 files", "labels.csv", str(root), "x2.png, x3.png, x4.png, ...", "lines 3, 4, 5, ..."):
        assert part in str(error.value)
    assert "One of that name is deep/x2.jpg." in str(error.value)


def test_messages_name_the_folder_and_the_options_of_the_interface(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create(root, "b.png")
    monkeypatch.chdir(root)
    table = LabelTable(Path("t.csv"), {"file": ("a.png",), "label": ("N",)}, (2,))
    for style, option in ((COMMAND, "FOLDER --labels t.csv"), (TRAINING, "data.root=FOLDER"), (PYTHON, "labels=")):
        with pytest.raises(DataError) as error:
            locate_files(table, Path(), style=style)
        assert f"not found in {root}: a.png" in str(error.value)
        assert option in str(error.value)
        assert "delete these rows" not in str(error.value)


def test_folders_are_no_files(root: Path) -> None:
    create(root, "a.png", "deep/b.png")
    with pytest.raises(DataError, match=r"lists 1 folder as files: deep \(line 3\)"):
        locate(root, "file,label", "a.png,N", "deep,N")


def test_names_too_long_for_a_file_system_are_missing(root: Path) -> None:
    with pytest.raises(DataError, match="1 of the 1 files"):
        locate(root, "file,label", f"{'a' * 300}.png,N")


NIH = "Image Index,Finding Labels"


def test_files_of_a_published_table_are_found_below_the_root(root: Path) -> None:
    create(root, "images_001/images/a.png", "images_002/images/b.png", "c.png")
    lines = (NIH, "a.png,No Finding", "b.png,Pneumonia", "c.png,No Finding", "absent.png,No Finding")
    files = locate(root, *lines, preset="nih")
    assert files == ["images_001/images/a.png", "images_002/images/b.png", "c.png", None]


def test_image_ids_of_a_published_table_are_found_with_any_suffix(root: Path) -> None:
    create(root, "one.dcm", "two.png", "train/three.dcm", "train/four.png", "train/four.dcm")
    lines = ("patientId,class", *(f"{name},Normal" for name in ("one", "two", "three", "four")))
    assert locate(root, *lines, preset="rsna") == ["one.dcm", "two.png", "train/three.dcm", "train/four.dcm"]


@pytest.mark.parametrize("folder", ["", "CheXpert-v1.0-small", "CheXpert-v1.0-small/train"])
def test_chexpert_may_be_anywhere_on_its_path(folder: str, root: Path) -> None:
    path = "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg"
    create(root, os.path.relpath(path, folder or "."))
    assert len(locate(root, "Path,No Finding,Pneumonia", f"{path},1,", preset="chexpert")) == 1


def test_published_tables_without_any_file_or_with_ambiguous_files_are_rejected(root: Path) -> None:
    with pytest.raises(DataError, match="1 of the 1 files"):
        locate(root, NIH, "a.png,No Finding", preset="nih")
    create(root, "full/a.png", "small/a.png")
    with pytest.raises(DataError, match=r"a.png is in several folders .*full, .*small"):
        locate(root, NIH, "a.png,No Finding", preset="nih")
