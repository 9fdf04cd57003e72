import os
from pathlib import Path

import pytest
from helpers.data_modules import OPTIONS

from pneumo.data.datamodule import ChestXrayDataModule
from pneumo.data.folder_tree import find_data_sets, is_hidden
from pneumo.data.index import find_root
from pneumo.errors import DataError


def data_set(folder: Path) -> Path:
    for split in ("train", "test"):
        (folder / split / "NORMAL").mkdir(parents=True)
    return folder


@pytest.mark.parametrize("folder", ["kermany", "chest_xray/chest_xray", "a/b/c", "archive (1)"])
def test_a_data_set_in_a_sub_folder_is_found(folder: str, tmp_path: Path) -> None:
    data_set(tmp_path / folder)
    data_set(tmp_path / "__MACOSX")
    data_set(tmp_path / ".trash")
    (tmp_path / "circle").symlink_to(tmp_path)
    assert find_data_sets(tmp_path) == [tmp_path / folder]
    with pytest.raises(DataError, match="has no train/ and test/") as error:
        find_root(tmp_path)
    argument = f"'data.root=\"{tmp_path / folder}\"'" if " " in folder else f"data.root={tmp_path / folder}"
    assert f"the data set is below it. Use {argument}." in str(error.value)


def test_all_of_several_data_sets_are_listed(tmp_path: Path) -> None:
    expected = [data_set(tmp_path / folder) for folder in ("a", "b", "c/d")]
    assert find_data_sets(tmp_path) == expected
    with pytest.raises(DataError, match="several data sets") as error:
        find_root(tmp_path)
    assert all(str(folder) in str(error.value) for folder in expected)


@pytest.mark.parametrize("folder", ["train", "train/NORMAL"])
def test_a_data_set_above_the_folder_is_found(folder: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"data.root={tmp_path}"):
        find_root(data_set(tmp_path) / folder)


def test_folders_without_a_data_set_give_no_result(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    assert find_data_sets(tmp_path) == find_data_sets(tmp_path / "nowhere") == []


def test_train_and_test_folders_of_a_project_are_not_a_data_set(tmp_path: Path) -> None:
    empty = data_set(tmp_path) / "data" / "chest_xray"
    empty.mkdir(parents=True)
    assert find_data_sets(empty) == []


def test_nothing_is_downloaded_if_a_sub_folder_has_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_set(tmp_path / "kermany")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(os.environ, "PNEUMO_DATA_ROOT", str(tmp_path))
    monkeypatch.setattr("pneumo.data.datamodule.download_chest_xray", lambda root: pytest.fail("downloaded"))
    data = ChestXrayDataModule(None, **OPTIONS)
    data.prepare_data()
    with pytest.raises(DataError, match="kermany"):
        data.setup()


@pytest.mark.parametrize(
    ("name", "hidden"), [("__MACOSX", True), (".DS_Store", True), ("..", False), ("NORMAL", False), ("a.b", False)]
)
def test_hidden_entries_and_macos_folders_are_detected(name: str, hidden: bool) -> None:
    assert is_hidden(name) == hidden
