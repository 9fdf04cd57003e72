from pathlib import Path

import pytest
from PIL import Image

from pneumo.audit.properties import read_pictures
from pneumo.audit.tree import read_tree
from pneumo.errors import DataError


def put(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("L", (40, 36), 90)
        image.putpixel((0, 0), 0)
        image.save(root / path)
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
        ((), (), "no image in any folder"),
        (("loose.png",), (), "lie in it themselves"),
        (("train/A/1.png",), ("A", "COVID"), "no image of COVID"),
        (("train/A/1.png",), ("A", "A"), "--classes A,A"),
        (("train/A/1.png", "validation/A/2.png"), (), "validation/, which is no split"),
        (("Train/A/1.png", "Test/A/2.png"), (), "Test/, which is no split"),
        (("training/A/1.png", "testing/A/2.png"), (), "testing/, which is no split"),
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
    Image.linear_gradient("L").convert("RGB").crop((0, 0, 50, 256)).save(tmp_path / "A" / "2.jpg")
    pictures = read_pictures(read_tree(tmp_path))
    assert [picture[:4] for picture in pictures.pictures] == [(40, 36, "L", "PNG"), (50, 256, "RGB", "JPEG")]
    assert pictures.thumbnails.shape == (2, 128, 128)
    assert (pictures.thumbnails[0, 9:] == 90).all()
    assert pictures.mismatched() == []


def test_a_tree_of_which_nothing_can_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"A/1\.png is text"):
        read_pictures(read_tree(tmp_path))


@pytest.mark.parametrize(
    ("paths", "meant"),
    [
        (("kermany/train/NORMAL", "kermany/train/PNEUMONIA", "kermany/test/NORMAL"), ["kermany"]),
        (("kermany/training/A", "kermany/training/B", "kermany/testing/A"), ["kermany"]),
        (("chest_xray/chest_xray/train/A", "chest_xray/chest_xray/test/A", "__MACOSX/a"), ["chest_xray/chest_xray"]),
        (("x/y/A", "x/y/B"), ["x/y"]),
        (("x/train/NORMAL",), ["x"]),
        (("a/train/N", "a/train/P", "a/test/N", "a/test/P", "b/c/normal", "b/c/pneumonia", "figures"), ["a", "b/c"]),
        (("x", "x/train/A", "x/train/B", "x/test/A", "x/test/B"), ["x"]),
    ],
)
def test_a_data_set_in_a_sub_folder_is_named(paths: tuple[str, ...], meant: list[str], tmp_path: Path) -> None:
    put(tmp_path, *(f"{path}/1.png" for path in paths))
    with pytest.raises(DataError, match="is no data set") as error:
        read_tree(tmp_path)
    assert all(str(tmp_path / folder) in str(error.value) for folder in meant)
    assert f"pneumo audit {tmp_path / meant[0]}" in str(error.value)
    assert ("several" in str(error.value)) == (len(meant) > 1)


@pytest.mark.parametrize(
    "paths",
    [
        ("A", "B"),
        ("A",),
        ("A/b/c",),
        ("A/train", "A/test"),
        ("A/p1", "A/p2", "B/p3", "B/p4"),
        ("A/train", "A/test", "B/train", "B/test"),
        ("A/train/p1", "A/train/p2", "A/test/p3", "B/train/p4", "B/test/p5", "B/test/p6"),
        ("NORMAL/train/AP", "NORMAL/train/PA", "NORMAL/test/AP", "NORMAL/test/PA", "PNEUMONIA/train/AP"),
    ],
)
def test_sub_folders_of_classes_are_no_data_sets(paths: tuple[str, ...], tmp_path: Path) -> None:
    tree = read_tree(put(tmp_path, *(f"{path}/1.png" for path in paths)))
    assert len(tree.files) == len(paths)
    assert tree.classes == tuple(sorted({path.partition("/")[0] for path in paths}))


def test_a_class_with_sub_folders_can_be_named(tmp_path: Path) -> None:
    put(tmp_path, "A/p1/1.png", "A/p2/1.png")
    with pytest.raises(DataError, match="--classes A"):
        read_tree(tmp_path)
    assert len(read_tree(tmp_path, ["A"]).files) == 2


def test_missing_classes_may_lie_in_a_sub_folder(tmp_path: Path) -> None:
    put(tmp_path, "x/A/1.png", "x/B/1.png")
    with pytest.raises(DataError, match=f"pneumo audit {tmp_path / 'x'}"):
        read_tree(tmp_path, ["A", "B"])


def test_classes_one_level_too_deep_in_their_splits_are_an_error(tmp_path: Path) -> None:
    put(tmp_path, "train/images/A/1.png", "train/images/B/1.png", "test/images/A/1.png", "test/images/B/1.png")
    with pytest.raises(DataError, match=r"test/images, train/images"):
        read_tree(tmp_path)


def test_of_a_class_in_a_split_the_data_set_is_named(tmp_path: Path) -> None:
    put(tmp_path, "train/A/1.png")
    with pytest.raises(DataError, match=f"{tmp_path}, or put them"):
        read_tree(tmp_path / "train" / "A")


def test_names_that_are_not_utf8_are_spelled_as_text(tmp_path: Path) -> None:
    put(tmp_path, "A\udce9/person1_virus_2.png", "B/x\udcff.png")
    (tmp_path / "B" / "\udcff.txt").write_text("no image")
    tree = read_tree(tmp_path)
    assert tree.classes == ("A\\udce9", "B")
    assert [file.path for file in tree.files] == ["A\\udce9/person1_virus_2.png", "B/x\\udcff.png"]
    assert tree.junk == ("B/\\udcff.txt",)
    assert read_tree(tmp_path, ["A\udce9", "B"]) == tree
    assert len(read_pictures(tree).files) == 2
