import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pneumo.data.index import Radiograph, data_hash, index_radiographs
from pneumo.data.splits import split_radiographs
from pneumo.errors import DataError
from pneumo.runs.split_files import find_images, find_table_images, free_columns, read_splits, write_splits

CLASSES = ["NORMAL", "PNEUMONIA"]
IMAGE = "test/NORMAL/0.png"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("PNEUMO_DATA_ROOT", raising=False)
    for split in ("train", "test"):
        for name in CLASSES:
            (tmp_path / "data" / split / name).mkdir(parents=True)
            Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(tmp_path / "data" / split / name / "0.png")
    shutil.copy(tmp_path / "data" / IMAGE, tmp_path / "private.png")
    return tmp_path / "data"


def recorded(root: Path) -> str:
    return data_hash(index_radiographs(root, CLASSES))


def test_images_of_the_recorded_data_set_are_found(root: Path, tmp_path: Path) -> None:
    assert find_images(root.parent, root, CLASSES, recorded(root), [IMAGE]) == [root / IMAGE]
    (tmp_path / "unpacked").mkdir()
    (tmp_path / "unpacked" / "chest_xray").symlink_to(root)  # the layout of unpacked archives
    (found,) = find_images(tmp_path, tmp_path / "unpacked", CLASSES, recorded(root), [IMAGE])
    assert found.samefile(root / IMAGE)


def test_images_are_found_after_others_were_added(root: Path) -> None:
    before = index_radiographs(root, CLASSES)
    write_splits(root.parent / "splits.csv", split_radiographs(before, "official", 0.1, 0), CLASSES)
    shutil.copy(root / IMAGE, root / "test" / "NORMAL" / "added.png")
    assert find_images(root.parent, root, CLASSES, data_hash(before), [IMAGE]) == [root / IMAGE]
    with pytest.raises(DataError, match="images are not in"):
        find_images(root.parent, root, CLASSES, data_hash(before), ["test/NORMAL/added.png"])
    Image.new("L", (9, 9)).save(root / "train" / "NORMAL" / "0.png")
    with pytest.raises(DataError, match="differ from the data of the run"):
        find_images(root.parent, root, CLASSES, data_hash(before), [IMAGE])


@pytest.mark.parametrize("remaining", ["nothing", "other data"])
def test_a_moved_data_set_is_found_by_the_environment_variable(
    remaining: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    moved, before = tmp_path / "moved", recorded(root)
    shutil.copytree(root, moved)
    (root / "train").rename(root / "elsewhere") if remaining == "nothing" else (root / IMAGE).write_bytes(b"another")
    with pytest.raises(DataError, match="PNEUMO_DATA_ROOT"):
        find_images(tmp_path, root, CLASSES, before, [IMAGE])
    monkeypatch.setenv("PNEUMO_DATA_ROOT", str(moved))
    assert find_images(tmp_path, root, CLASSES, before, [IMAGE]) == [moved / IMAGE]
    assert not caplog.text
    (moved / IMAGE).write_bytes(b"another")
    assert find_images(tmp_path, root, CLASSES, before, [IMAGE]) == [moved / IMAGE]
    assert "differ from the data of the run" in caplog.text


@pytest.mark.parametrize("use_variable", [False, True])
@pytest.mark.parametrize(
    "path", ["{}/private.png", "../private.png", "test/../../private.png", "test/NORMAL/../../../x"]
)
def test_paths_outside_the_data_set_raise_an_error(
    path: str, use_variable: bool, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if use_variable:
        monkeypatch.setenv("PNEUMO_DATA_ROOT", str(root))
    with pytest.raises(DataError, match="1 of the 2 images are not in"):
        find_images(root.parent, root, CLASSES, recorded(root), [IMAGE, path.format(tmp_path)])


def test_links_out_of_the_data_set_are_followed_only_in_the_folder_of_the_variable(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / IMAGE).unlink()
    (root / IMAGE).symlink_to(tmp_path / "private.png")
    with pytest.raises(DataError, match=r"1 of the 1 images .* PNEUMO_DATA_ROOT"):
        find_images(root.parent, root, CLASSES, recorded(root), [IMAGE])
    monkeypatch.setenv("PNEUMO_DATA_ROOT", str(root))
    assert find_images(root.parent, root, CLASSES, "", [IMAGE]) == [root / IMAGE]


@pytest.mark.parametrize("classes", [CLASSES, ["..", "NORMAL"], ["NORMAL", "../../.."], ["/"]])
def test_images_of_another_data_set_are_never_returned(classes: list[str], root: Path) -> None:
    with pytest.raises(DataError, match=r"differ from the data of the run|data\.classes"):
        find_images(root.parent, root, classes, "0123456789abcdef", [IMAGE])


def test_files_that_are_not_images_of_the_data_set_are_never_returned(root: Path) -> None:
    (root / "test" / "notes.txt").write_text("private")
    with pytest.raises(DataError, match="images are not in"):
        find_images(root.parent, root, CLASSES, recorded(root), ["test/notes.txt"])


@pytest.mark.parametrize("name", ["${oc.env:HOME}", "x" * 300])
def test_a_folder_without_a_data_set_raises_an_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="contains no data set"):
        find_images(tmp_path, tmp_path / name, CLASSES, "", [IMAGE])


def table_run(folder: Path) -> Path:
    """Write the splits.csv of a run on a table of one file, and the file; return the folder of the file."""
    root = folder / "images"
    root.mkdir()
    (root / "a.png").write_bytes(b"12345")
    image = Radiograph("a.png", 0, "none", "p1", "test", 5, 1, "A", ("70", "x"))
    write_splits(folder / "splits.csv", {"test": [image]}, CLASSES, ("age", "class"))
    return root


def test_the_columns_of_a_table_are_written_and_read(tmp_path: Path) -> None:
    table_run(tmp_path)
    (line,) = read_splits(tmp_path)
    expected = {"path": "a.png", "split": "test", "class": "NORMAL", "subtype": "none", "patient": "p1", "site": "A"}
    assert line == {**expected, "size": "5", "age": "70", "table_class": "x"}


def test_names_of_free_columns_are_unique() -> None:
    names = ("age", "label", "size", "NORMAL", "table_label", "logit_margin")
    found = free_columns(names, CLASSES)
    assert found == ["age", "table_label", "table_size", "table_NORMAL", "table_table_label", "table_logit_margin"]


def test_images_of_a_table_are_found_by_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = table_run(tmp_path)
    assert find_table_images(tmp_path, root, ["a.png"]) == [root / "a.png"]
    moved = shutil.copytree(root, tmp_path / "moved")
    (root / "a.png").write_bytes(b"another")
    with pytest.raises(DataError, match="PNEUMO_DATA_ROOT"):
        find_table_images(tmp_path, root, ["a.png"])
    monkeypatch.setenv("PNEUMO_DATA_ROOT", str(moved))
    assert find_table_images(tmp_path, root, ["a.png"]) == [moved / "a.png"]


def test_images_outside_of_the_root_of_a_table_are_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PNEUMO_DATA_ROOT", raising=False)
    root = table_run(tmp_path)
    with pytest.raises(DataError, match="not in"):
        find_table_images(tmp_path, root, ["../splits.csv"])
    (root / "a.png").rename(tmp_path / "private.png")
    (root / "a.png").symlink_to(tmp_path / "private.png")
    with pytest.raises(DataError, match="does not contain"):
        find_table_images(tmp_path, root, ["a.png"])
