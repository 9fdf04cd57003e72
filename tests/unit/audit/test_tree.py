from pathlib import Path

import pytest
from PIL import Image

from pneumo.audit.pictures import read_pictures
from pneumo.audit.tree import read_tree
from pneumo.errors import DataError


def put(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 6), 90).save(root / path)
    return root


@pytest.mark.parametrize("folder", [".", "chest_xray"])
def test_any_subset_of_the_splits_will_do(folder: str, tmp_path: Path) -> None:
    put(tmp_path / folder, "test/B/person1_virus_2.jpeg", "train/A/deep/down/IM-0115-0001.jpeg")
    tree = read_tree(tmp_path)
    assert (tree.splits, tree.classes) == (("train", "test"), ("A", "B"))
    assert [(file.path, file.split, file.label, file.subtype, file.patient) for file in tree.files] == [
        ("test/B/person1_virus_2.jpeg", "test", 1, "viral", "person1"),
        ("train/A/deep/down/IM-0115-0001.jpeg", "train", 0, "none", "IM-0115"),
    ]


def test_without_splits_folders_are_classes_and_their_order_may_be_given(tmp_path: Path) -> None:
    put(tmp_path, "x/1.png", "y/2.png", "z/3.png", ".hidden/4.png", "__MACOSX/5.png")
    assert read_tree(tmp_path).classes == ("x", "y", "z")
    tree = read_tree(tmp_path, ["z", "x"])
    assert [(file.path, file.label, file.patient) for file in tree.files] == [
        ("x/1.png", 1, None),
        ("z/3.png", 0, None),
    ]
    assert tree.junk == (".hidden/4.png", "__MACOSX/5.png", "y/2.png")


@pytest.mark.parametrize(
    ("paths", "classes", "message"),
    [
        ((), (), "no image in any folder of a class.*folders there are none"),
        (("loose.png",), (), "lie in it themselves.*name the folder that it lies in"),
        (("train/A/1.png",), ("A", "COVID"), "no image of COVID.*folders there are A"),
        (("train/A/1.png",), ("A", "A"), "--classes A,A names a class twice"),
        (("train/A/1.png", "validation/A/2.png"), (), "has a folder validation/, which is no split"),
        (("Train/A/1.png", "Test/A/2.png"), (), "has a folder Test/, which is no split"),
        (("training/A/1.png", "testing/A/2.png"), (), "has a folder testing/, which is no split"),
    ],
)
def test_what_is_no_tree_is_an_error(
    paths: tuple[str, ...], classes: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        read_tree(put(tmp_path, *paths), classes)


def test_a_root_that_is_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is no folder"):
        read_tree(tmp_path / "nowhere")


def test_a_link_that_leads_nowhere_is_an_error(tmp_path: Path) -> None:
    put(tmp_path, "A/1.png")
    (tmp_path / "A" / "link.png").symlink_to("nowhere.png")
    with pytest.raises(DataError, match=r"link\.png cannot be read.*mend"):
        read_tree(tmp_path)


def test_files_tell_size_mode_and_format(tmp_path: Path) -> None:
    put(tmp_path, "A/1.png")
    Image.new("RGB", (30, 20), (90, 90, 90)).save(tmp_path / "A" / "2.jpg")
    pictures = read_pictures(read_tree(tmp_path))
    assert [picture[:4] for picture in pictures.pictures] == [(8, 6, "L", "PNG"), (30, 20, "RGB", "JPEG")]
    assert pictures.thumbnails.shape == (2, 128, 128)
    assert pictures.thumbnails.min() == pictures.thumbnails.max() == 90
    assert pictures.mismatched() == []


def test_a_tree_of_which_nothing_can_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"None of the 1 image files.*A/1\.png is text.*whole images"):
        read_pictures(read_tree(tmp_path))
