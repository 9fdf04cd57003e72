from pathlib import Path

import pytest
from PIL import Image

from pneumo.audit.properties import read_images
from pneumo.data.image_tree import read_tree
from pneumo.errors import DataError


def write_images(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("L", (40, 36), 90)
        image.putpixel((0, 0), 0)
        image.save(root / path)
    return root


@pytest.mark.parametrize("folder", [".", "chest_xray"])
def test_any_subset_of_the_splits_is_accepted(folder: str, tmp_path: Path) -> None:
    write_images(tmp_path / folder, "test/B/person1_virus_2.jpeg", "train/A/deep/down/IM-0115-0001.jpeg")
    tree = read_tree(tmp_path)
    assert (tree.splits, tree.classes) == (("train", "test"), ("A", "B"))
    assert [(file.path, file.split, file.label, file.subtype, file.patient) for file in tree.files] == [
        ("test/B/person1_virus_2.jpeg", "test", 1, "viral", "person1"),
        ("train/A/deep/down/IM-0115-0001.jpeg", "train", 0, "none", "IM-0115"),
    ]


def test_without_splits_folders_are_classes_in_an_optional_order(tmp_path: Path) -> None:
    write_images(tmp_path, "x/1.png", "y/2.png", "z/3.png", ".hidden/4.png", "__MACOSX/5.png")
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
        ((), (), "no image in any class folder"),
        (("loose.png",), (), "contains images directly"),
        (("train/A/1.png",), ("A", "COVID"), "no image of COVID"),
        (("train/A/1.png",), ("A", "A"), "--classes A,A"),
        (("train/A/1.png", "validation/A/2.png"), (), "validation/, which is not a split"),
        (("Train/A/1.png", "Test/A/2.png"), (), "Test/, which is not a split"),
        (("training/A/1.png", "testing/A/2.png"), (), "testing/, which is not a split"),
    ],
)
def test_invalid_trees_are_rejected(
    paths: tuple[str, ...], classes: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        read_tree(write_images(tmp_path, *paths), classes)


def test_a_root_that_is_not_a_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is not a folder"):
        read_tree(tmp_path / "nowhere")


def test_a_broken_link_is_an_error(tmp_path: Path) -> None:
    write_images(tmp_path, "A/1.png")
    (tmp_path / "A" / "link.png").symlink_to("nowhere.png")
    with pytest.raises(DataError, match=r"link\.png cannot be read.*Fix its permissions"):
        read_tree(tmp_path)


def test_size_mode_and_format_are_read(tmp_path: Path) -> None:
    write_images(tmp_path, "A/1.png")
    Image.linear_gradient("L").convert("RGB").crop((0, 0, 50, 256)).save(tmp_path / "A" / "2.jpg")
    images = read_images(read_tree(tmp_path))
    assert [info[:4] for info in images.infos] == [(40, 36, "L", "PNG"), (50, 256, "RGB", "JPEG")]
    assert images.thumbnails.shape == (2, 128, 128)
    assert (images.thumbnails[0, 9:] == 90).all()
    assert images.mismatched() == []


def test_a_tree_without_readable_images_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"A/1\.png is text"):
        read_images(read_tree(tmp_path))


@pytest.mark.parametrize(
    ("paths", "nested"),
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
def test_a_data_set_in_a_sub_folder_is_named(paths: tuple[str, ...], nested: list[str], tmp_path: Path) -> None:
    write_images(tmp_path, *(f"{path}/1.png" for path in paths))
    with pytest.raises(DataError, match="is not a data set") as error:
        read_tree(tmp_path)
    assert all(str(tmp_path / folder) in str(error.value) for folder in nested)
    assert f"pneumo audit {tmp_path / nested[0]}" in str(error.value)
    assert ("several" in str(error.value)) == (len(nested) > 1)


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
def test_sub_folders_of_classes_are_not_data_sets(paths: tuple[str, ...], tmp_path: Path) -> None:
    tree = read_tree(write_images(tmp_path, *(f"{path}/1.png" for path in paths)))
    assert len(tree.files) == len(paths)
    assert tree.classes == tuple(sorted({path.partition("/")[0] for path in paths}))


def test_a_class_with_sub_folders_can_be_selected(tmp_path: Path) -> None:
    write_images(tmp_path, "A/p1/1.png", "A/p2/1.png")
    with pytest.raises(DataError, match="--classes A"):
        read_tree(tmp_path)
    assert len(read_tree(tmp_path, ["A"]).files) == 2


def test_missing_classes_in_a_sub_folder_are_found(tmp_path: Path) -> None:
    write_images(tmp_path, "x/A/1.png", "x/B/1.png")
    with pytest.raises(DataError, match=f"pneumo audit {tmp_path / 'x'}"):
        read_tree(tmp_path, ["A", "B"])


def test_classes_one_level_too_deep_in_their_splits_are_an_error(tmp_path: Path) -> None:
    write_images(tmp_path, "train/images/A/1.png", "train/images/B/1.png", "test/images/A/1.png", "test/images/B/1.png")
    with pytest.raises(DataError, match=r"test/images, train/images"):
        read_tree(tmp_path)


def test_the_data_set_of_a_class_folder_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, "train/A/1.png")
    with pytest.raises(DataError, match=f"{tmp_path}, or put the images"):
        read_tree(tmp_path / "train" / "A")


def test_names_that_are_not_utf8_are_escaped(tmp_path: Path) -> None:
    write_images(tmp_path, "A\udce9/person1_virus_2.png", "B/x\udcff.png")
    (tmp_path / "B" / "\udcff.txt").write_text("no image")
    tree = read_tree(tmp_path)
    assert tree.classes == ("A\\udce9", "B")
    assert [file.path for file in tree.files] == ["A\\udce9/person1_virus_2.png", "B/x\\udcff.png"]
    assert tree.junk == ("B/\\udcff.txt",)
    assert read_tree(tmp_path, ["A\udce9", "B"]) == tree
    assert len(read_images(tree).files) == 2
