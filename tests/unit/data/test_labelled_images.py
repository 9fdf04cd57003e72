from collections import Counter
from pathlib import Path

import pytest

from pneumo.data.index import file_path
from pneumo.data.labelled_images import LabelledImage, read_labelled
from pneumo.errors import ConfigError, DataError


def create(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_class_folders(tmp_path: Path) -> None:
    names = ("NORMAL/IM-0115-0001.jpeg", "PNEUMONIA/x.png", "PNEUMONIA/deep/scan.dcm", "NORMAL/notes.txt", "labels.csv")
    root = create(tmp_path / "clinic", *names)
    labelled = read_labelled(root)
    assert labelled.name == "clinic"
    assert labelled.images == (
        LabelledImage(root / "NORMAL/IM-0115-0001.jpeg", "NORMAL/IM-0115-0001.jpeg", "NORMAL", "IM-0115", "", ""),
        LabelledImage(root / "PNEUMONIA/deep/scan.dcm", "PNEUMONIA/deep/scan.dcm", "PNEUMONIA", "", "", ""),
        LabelledImage(root / "PNEUMONIA/x.png", "PNEUMONIA/x.png", "PNEUMONIA", "", "", ""),
    )
    assert labelled.extra_columns == ()
    assert {name for name, _ in labelled.skipped} == {"NORMAL/notes.txt", "labels.csv"}


@pytest.mark.parametrize("folder", [".", "chest_xray"])
def test_of_a_tree_one_split_or_all_are_used(folder: str, tmp_path: Path) -> None:
    root = create(tmp_path / folder, "train/A/1.png", "train/B/2.png", "test/A/3.png", "test/B/4.png")
    images = read_labelled(tmp_path).images
    assert [(image.name, image.label, image.split) for image in images] == [
        ("test/A/3.png", "A", "test"),
        ("test/B/4.png", "B", "test"),
    ]
    assert images[0].file == root / "test/A/3.png"
    everything = read_labelled(tmp_path, split="all").images
    assert Counter(image.split for image in everything) == {"train": 2, "test": 2}
    with pytest.raises(DataError, match="split val, but of train, test"):
        read_labelled(tmp_path, split="val")


def test_a_table_alone_is_relative_to_its_folder(tmp_path: Path) -> None:
    create(tmp_path, "a/1.png", "a/2.png")
    lines = ("file,label,Age,patient,site,sex", "./a/1.png,N,70,p1,West,M", "a/2.png,P,,,,F")
    labelled = read_labelled(write(tmp_path / "clinic.csv", *lines))
    assert labelled.name == "clinic"
    assert labelled.extra_columns == ("Age", "sex")
    assert labelled.images == (
        LabelledImage(tmp_path / "a/1.png", "a/1.png", "N", "p1", "West", "", ("70", "M")),
        LabelledImage(tmp_path / "a/2.png", "a/2.png", "P", "", "", "", ("", "F")),
    )


def test_a_table_may_be_elsewhere(tmp_path: Path) -> None:
    root = create(tmp_path / "clinic", "1.png", "deep/4.png")
    outside = create(tmp_path / "other", "2.png", "3.png") / "2.png"
    rows = (f"{root / '1.png'},N", f"{outside},N", "../other/3.png,N", r"deep\4.png,N")
    table = write(tmp_path / "labels.csv", "file,label", *rows)
    labelled = read_labelled(root, labels=table)
    assert labelled.name == "clinic"
    assert [image.name for image in labelled.images] == ["1.png", "../other/2.png", "../other/3.png", "deep/4.png"]
    assert [file_path(root, image.name).resolve() for image in labelled.images] == [
        image.file.resolve() for image in labelled.images
    ]


def test_names_do_not_depend_on_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create(tmp_path, "a/1.png", "2.png")
    table = write(tmp_path / "labels.csv", "file,label", "a/1.png,N", f"{tmp_path / '2.png'},N")
    names = [image.name for image in read_labelled(table).images]
    monkeypatch.chdir(tmp_path)
    assert [image.name for image in read_labelled(Path("labels.csv")).images] == names == ["a/1.png", "2.png"]


def test_splits_of_a_table(tmp_path: Path) -> None:
    create(tmp_path, *"abcdef")
    splits = ("Training", "valid", "dev", "TEST", "testing", "")
    rows = (f"{name},N,{split}" for name, split in zip("abcdef", splits, strict=True))
    table = write(tmp_path / "labels.csv", "file,label,split", *rows)
    labelled = read_labelled(table)
    assert [(image.name, image.split) for image in labelled.images] == [("d", "test"), ("e", "test")]
    assert labelled.skipped == (("f", "no split"),)
    for split in ("valid", "Validation", "DEV"):
        assert [image.name for image in read_labelled(table, split=split).images] == ["b", "c"]
    assert [image.name for image in read_labelled(table, split="Training").images] == ["a"]
    labelled = read_labelled(table, split="all")
    assert [image.split for image in labelled.images] == ["train", "val", "val", "test", "test", ""]
    assert labelled.skipped == ()


def test_labels_of_folders_and_tables_are_mapped(tmp_path: Path) -> None:
    create(tmp_path, "No Finding/1.png", "COVID/2.png")
    mapping = {"No Finding": "NORMAL"}
    table = write(tmp_path / "labels.csv", "file,label", "No Finding/1.png,No Finding", "COVID/2.png,COVID")
    for data in (tmp_path, table):
        labels = {image.name: image.label for image in read_labelled(data, mapping=mapping).images}
        assert labels == {"No Finding/1.png": "NORMAL", "COVID/2.png": "COVID"}


def test_presets_count_what_they_leave_out(tmp_path: Path) -> None:
    create(tmp_path, "images/a.png", "images/b.png")
    lines = ("Image Index,Finding Labels", "a.png,No Finding", "b.png,Mass", "c.png,Pneumonia")
    labelled = read_labelled(write(tmp_path / "labels.csv", *lines), preset="NIH")
    assert [(image.file, image.name, image.label) for image in labelled.images] == [
        (tmp_path / "images/a.png", "images/a.png", "NORMAL")
    ]
    assert labelled.skipped == (("b.png", "other findings"), ("c.png", "file not found"))


def test_names_are_escaped(tmp_path: Path) -> None:
    root = create(tmp_path / "cli\x1bnic", "A/\udcff.png", "B/1.png")
    labelled = read_labelled(root)
    assert labelled.name == r"cli\x1bnic"
    assert labelled.images[0].name == r"A/\udcff.png"
    assert labelled.images[0].file.exists()


def test_mistakes_are_explained(tmp_path: Path) -> None:
    create(tmp_path, "tree/A/1.png", "tree/B/2.png", "loose/1.png", "nested/x/NORMAL/1.png", "nested/x/PNEUMONIA/2.png")
    table = write(tmp_path / "labels.csv", "file,label,split", "tree/A/1.png,N,train")
    plain = write(tmp_path / "plain.csv", "file,label,split", "tree/A/1.png,N,")
    odd = write(tmp_path / "odd.csv", "file,label,split", "tree/A/1.png,N,fold1")
    tree = tmp_path / "tree"
    cases: list[tuple[type[Exception], str, Path, dict[str, object]]] = [
        (ConfigError, "--split holdout .* train, val, test or all", tree, {"split": "holdout"}),
        (ConfigError, "--preset nih needs a table", tree, {"preset": "nih"}),
        (ConfigError, "--column file=x needs a table", tree, {"columns": {"file": "x"}}),
        (ConfigError, "--map C=NORMAL .* A, B: use one", tree, {"mapping": {"C": "NORMAL"}}),
        (ConfigError, "--map P=X .* N: use one", table, {"mapping": {"P": "X"}, "split": "train"}),
        (DataError, "split test, but of train", table, {}),
        (ConfigError, "--split train has no effect on .*tree, .* Omit it", tree, {"split": "train"}),
        (ConfigError, "--split val has no effect on .*plain.csv", plain, {"split": "dev"}),
        (DataError, r"'fold1' \(line 2\)", odd, {}),
        (DataError, "labels.csv is not a folder", table, {"labels": table}),
        (DataError, "absent does not exist", tmp_path / "absent", {}),
        (DataError, "absent is not a folder", tmp_path / "absent", {"labels": table}),
        (DataError, "contains images directly", tmp_path / "loose", {}),
        (DataError, "table with the columns file and label", tmp_path / "nested", {}),
        (DataError, "is empty", tree / "A" / "empty", {}),
    ]
    (tree / "A" / "empty").touch()
    for kind, message, data, options in cases:
        with pytest.raises(kind, match=message) as error:
            read_labelled(data, **options)  # type: ignore[arg-type]
        assert "audit" not in str(error.value)
        assert "--classes" not in str(error.value)


def test_case_matters_only_for_mapped_labels_that_the_table_has(tmp_path: Path) -> None:
    names = ("1.png", "2.png", "3.png")
    create(tmp_path, *names)
    labels = zip(names, ("TRUE", "False", "FALSE"), strict=True)
    table = write(tmp_path / "labels.csv", "file,label", *(",".join(row) for row in labels))
    images = read_labelled(table, mapping={"True": "P", "False": "N", "false": "U"}).images
    assert [image.label for image in images] == ["P", "N", "U"]


@pytest.mark.parametrize(("file", "name"), [("clinic/labels.csv", "clinic"), ("clinic/site_a.csv", "site_a")])
def test_a_table_named_labels_has_the_name_of_its_folder(file: str, name: str, tmp_path: Path) -> None:
    create(tmp_path, "clinic/1.png")
    write(tmp_path / file, "file,label", "1.png,A")
    assert read_labelled(tmp_path / file).name == name
