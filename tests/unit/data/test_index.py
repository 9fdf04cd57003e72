import logging
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from pneumo.data.image_cache import content_hash
from pneumo.data.index import data_hash, file_path, find_root, index_radiographs, is_image, walk
from pneumo.errors import DataError

CLASSES = ["NORMAL", "PNEUMONIA"]
NAMES = {
    "NORMAL": ["IM-0115-0001.jpeg", "IM-0117-0001-0002.jpeg", "NORMAL2-IM-0383-0001.jpeg"],
    "PNEUMONIA": ["person1_bacteria_1.jpeg", "person12_virus_48.jpeg", "scan.PNG"],
}


def tree(root: Path, splits: tuple[str, ...] = ("train", "val", "test")) -> Path:
    for split in splits:
        for name, files in NAMES.items():
            for file in files:
                path = root / split / name / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"x")
    return root


def test_patients_and_subtypes_are_read_from_file_names(tmp_path: Path) -> None:
    images = index_radiographs(tree(tmp_path), CLASSES)
    train = {Path(image.path).name: image for image in images if image.split == "train"}
    assert [
        (train[name].label, train[name].subtype, train[name].patient) for names in NAMES.values() for name in names
    ] == [
        (0, "none", "IM-0115"),
        (0, "none", "IM-0117"),
        (0, "none", "NORMAL2-IM-0383"),
        (1, "bacterial", "person1"),
        (1, "viral", "person12"),
        (1, "none", "scan.PNG"),
    ]
    assert Counter(image.split for image in images) == {"train": 6, "val": 6, "test": 6}
    assert [image.path for image in images] == sorted(image.path for image in images)


def test_dicom_files_are_images_by_suffix_or_by_content(tmp_path: Path) -> None:
    dicom = b"\0" * 128 + b"DICM"
    contents = {
        "a.dcm": b"x",
        "b.DICOM": b"x",
        "IM000001": dicom,
        "1.2.840.10008.5": dicom,
        "DICOMDIR": dicom,
        "notes.txt": dicom,
        "notes": b"text",
        "empty.dcm": b"",
        ".hidden": dicom,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "secret").write_bytes(dicom)
    (tmp_path / "secret").chmod(0)
    os.mkfifo(tmp_path / "pipe")
    os.symlink(tmp_path / "absent", tmp_path / "broken")
    images = {entry.name for entry in walk(tmp_path) if is_image(entry)}
    expected = {"a.dcm", "b.DICOM", "IM000001", "1.2.840.10008.5"}
    assert images == expected | ({"secret"} if os.access(tmp_path / "secret", os.R_OK) else set())


def test_val_may_be_missing(tmp_path: Path) -> None:
    images = index_radiographs(tree(tmp_path, ("train", "test")), CLASSES)
    assert {image.split for image in images} == {"train", "test"}


def test_junk_is_skipped_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tree(tmp_path)
    clean = index_radiographs(root, CLASSES)
    folder = root / "train" / "NORMAL"
    for name in (".DS_Store", "Thumbs.db", "._IM-0115-0001.jpeg", "notes.txt", "__MACOSX/IM-0115-0001.jpeg"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"junk")
    (folder / "empty.jpeg").touch()
    (root / "train" / "OTHER").mkdir()
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert index_radiographs(root, CLASSES) == clean
    assert len(caplog.records) == 1
    assert "Skipping 7 entries" in caplog.text
    assert "train/NORMAL/.DS_Store" in caplog.text


@pytest.mark.parametrize("target", ["nowhere.jpeg", "link.jpeg"])
def test_a_broken_link_is_an_error(target: str, tmp_path: Path) -> None:
    link = tree(tmp_path) / "train" / "NORMAL" / "link.jpeg"
    link.symlink_to(target)
    with pytest.raises(DataError, match=r"train/NORMAL/link\.jpeg cannot be read.*Fix"):
        index_radiographs(tmp_path, CLASSES)


def test_a_link_to_its_own_folder_is_an_error(tmp_path: Path) -> None:
    folder = tree(tmp_path) / "train" / "NORMAL"
    (folder / "again").symlink_to(folder)
    with pytest.raises(DataError, match=r"train/NORMAL/again.*cannot be read"):
        index_radiographs(tmp_path, CLASSES)


def test_the_chest_xray_folder_of_the_archive_is_found(tmp_path: Path) -> None:
    tree(tmp_path / "chest_xray")
    assert find_root(tmp_path) == tmp_path / "chest_xray"
    assert find_root(tmp_path / "chest_xray") == tmp_path / "chest_xray"


@pytest.mark.parametrize("make", [False, True])
def test_a_missing_data_set_is_an_error_with_a_fix(tmp_path: Path, make: bool) -> None:
    root = tmp_path / "nothing"
    if make:
        root.mkdir()
    with pytest.raises(DataError, match=r"data\.root=.*nothing.*data=synthetic"):
        find_root(root)


@pytest.mark.parametrize("leave_folder", [False, True])
def test_an_empty_class_is_an_error(tmp_path: Path, leave_folder: bool) -> None:
    root = tree(tmp_path)
    shutil.rmtree(root / "test" / "PNEUMONIA")
    if leave_folder:
        (root / "test" / "PNEUMONIA").mkdir()
    with pytest.raises(DataError, match=r"test/PNEUMONIA (has no images|does not exist)"):
        index_radiographs(root, CLASSES)


def test_the_hash_depends_on_files_and_splits(tmp_path: Path) -> None:
    root = tree(tmp_path)

    def current() -> str:
        return data_hash(index_radiographs(root, CLASSES))

    before = current()
    assert current() == before
    (root / "val" / "NORMAL" / "IM-0115-0001.jpeg").write_bytes(b"xx")
    changed = current()
    assert changed != before
    (root / "val" / "NORMAL" / "IM-0115-0001.jpeg").rename(root / "train" / "NORMAL" / "IM-9999-0001.jpeg")
    assert current() not in (before, changed)


def test_a_name_that_is_not_utf8_is_indexed_as_text(tmp_path: Path) -> None:
    root = tree(tmp_path)
    before = data_hash(index_radiographs(root, CLASSES))
    assert before == "26bf9a734207aee3"  # the value in the records of earlier runs
    (root / "train" / "NORMAL" / "\udce9.png").write_bytes(b"x")
    (image,) = (image for image in index_radiographs(root, CLASSES) if image.path.endswith(".png"))
    assert (image.path, image.patient) == (r"train/NORMAL/\udce9.png", r"\udce9.png")
    assert file_path(root, image.path).read_bytes() == b"x"
    assert data_hash(index_radiographs(root, CLASSES)) != before
    assert content_hash(root, [image], tmp_path / "cache") == content_hash(root, [image], tmp_path / "other")
