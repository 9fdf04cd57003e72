import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pneumo.data.index import data_hash, index_radiographs
from pneumo.errors import DataError
from pneumo.run_images import find_images

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
    assert find_images(root, CLASSES, recorded(root), [IMAGE]) == [root / IMAGE]
    (tmp_path / "unpacked").mkdir()
    (tmp_path / "unpacked" / "chest_xray").symlink_to(root)  # as archives unpack
    (found,) = find_images(tmp_path / "unpacked", CLASSES, recorded(root), [IMAGE])
    assert found.samefile(root / IMAGE)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize(
    "path", ["{}/private.png", "../private.png", "test/../../private.png", "test/NORMAL/../../../x"]
)
def test_no_path_leads_out_of_the_data_set(
    path: str, named: bool, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if named:
        monkeypatch.setenv("PNEUMO_DATA_ROOT", str(root))
    with pytest.raises(DataError, match="1 of the 2 images lie outside of"):
        find_images(root, CLASSES, recorded(root), [IMAGE, path.format(tmp_path)])


def test_a_link_out_of_the_data_set_is_followed_in_ones_own_only(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / IMAGE).unlink()
    (root / IMAGE).symlink_to(tmp_path / "private.png")
    with pytest.raises(DataError, match="1 of the 1 images lie outside of"):
        find_images(root, CLASSES, recorded(root), [IMAGE])
    monkeypatch.setenv("PNEUMO_DATA_ROOT", str(root))
    assert find_images(root, CLASSES, "", [IMAGE]) == [root / IMAGE]


@pytest.mark.parametrize("classes", [CLASSES, ["..", "NORMAL"], ["NORMAL", "../../.."], ["/"]])
def test_another_data_set_than_the_recorded_one_is_not_shown(classes: list[str], root: Path) -> None:
    with pytest.raises(DataError, match=r"not those that the run recorded|data\.classes"):
        find_images(root, classes, "0123456789abcdef", [IMAGE])


def test_a_file_that_is_none_of_the_images_is_not_shown(root: Path) -> None:
    (root / "test" / "notes.txt").write_text("private")
    with pytest.raises(DataError, match="are not in it"):
        find_images(root, CLASSES, recorded(root), ["test/notes.txt"])


def test_a_folder_that_is_no_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no data set"):
        find_images(tmp_path / "${oc.env:HOME}", CLASSES, "", [IMAGE])
