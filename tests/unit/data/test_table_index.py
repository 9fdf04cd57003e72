import logging
from pathlib import Path

import pytest

from pneumo.data.index import file_path
from pneumo.data.table_index import TableIndex, TableSource, index_table, table_source
from pneumo.errors import ConfigError, DataError

CLASSES = ("NORMAL", "TB", "COVID")
ROWS = ("b/2.png,TB,p1,A,70", "a.png,NORMAL,,B,", "c.png,COVID,p2,A,5")


def table(folder: Path, *rows: str, header: str = "file,label,patient,site,age", name: str = "labels.csv") -> Path:
    for row in rows:
        file = folder / row.split(",")[0]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"12345")
    path = folder / name
    path.write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    return path


def index(path: Path, classes: tuple[str, ...] = CLASSES, **options: object) -> TableIndex:
    return index_table(TableSource(path, **options), classes)  # type: ignore[arg-type] # checked at run time


def test_radiographs_are_sorted_by_path_and_have_all_columns(tmp_path: Path) -> None:
    found = index(table(tmp_path, *ROWS))
    assert found.root == tmp_path
    assert found.extra_columns == ("age",)
    assert [(i.path, i.label, i.patient, i.site, i.split, i.size, i.extra) for i in found.radiographs] == [
        ("a.png", 0, "", "B", "", 5, ("",)),
        ("b/2.png", 1, "p1", "A", "", 5, ("70",)),
        ("c.png", 2, "p2", "A", "", 5, ("5",)),
    ]
    assert all(file_path(found.root, image.path).is_file() for image in found.radiographs)


def test_the_hash_depends_on_everything_but_the_order_and_the_free_columns(tmp_path: Path) -> None:
    first = index(table(tmp_path, *ROWS)).data_hash
    assert index(table(tmp_path, *ROWS[::-1])).data_hash == first
    assert index(table(tmp_path, ROWS[0].replace("70", "71"), *ROWS[1:])).data_hash == first
    rows = (*ROWS, "d.png,TB,p4,A,")
    fourth = index(table(tmp_path, *rows)).data_hash
    changes = (("TB", "COVID"), ("p4", "p3"), (",A,", ",C,"))
    hashes = {index(table(tmp_path, *ROWS, rows[3].replace(old, new))).data_hash for old, new in changes}
    assert len({first, fourth, *hashes}) == 5
    with_splits = [f"{row},{name}" for row, name in zip(ROWS, ("train", "val", "test"), strict=True)]
    split = table(tmp_path, *with_splits, header="file,label,patient,site,age,split")
    other = index(split).data_hash
    split.write_text(split.read_text().replace(",val", ",train"))
    assert len({first, other, index(split).data_hash}) == 3


def test_labels_are_mapped_and_null_leaves_images_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = table(tmp_path, "1.png,0,,,", "2.png,1,,,", "3.png,unclear,,,")
    source = table_source(str(path), None, None, {"file": None, "label": "label"}, {0: "NO", 1: "TB", "unclear": None})
    with caplog.at_level(logging.WARNING):
        found = index_table(source, ("NO", "TB"))
    assert [(image.path, image.label) for image in found.radiographs] == [("1.png", 0), ("2.png", 1)]
    assert "Leaving out 1 images" in caplog.text
    assert "3.png" in caplog.text


def test_a_mapping_of_an_unknown_label_to_null_is_shown_as_null(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^data\.mapping=\{Mass: null\} names a label that does not occur"):
        index(table(tmp_path, *ROWS), mapping={"Mass": None})


def test_files_may_be_absolute_or_below_another_root(tmp_path: Path) -> None:
    root = tmp_path / "images"
    table(root, *ROWS)
    rows = [f"{root / 'a.png'},NORMAL", "b/2.png,TB", "./c.png,COVID"]
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(("file,label", *rows)))
    found = index(path, root=root)
    assert [image.path for image in found.radiographs] == ["a.png", "b/2.png", "c.png"]
    assert found.root == root


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("1.png,NORMAL", "2.png,Tb", "3.png,COVID"), r"labels that are not in data\.classes=.*Tb \(1 image\)"),
        (("1.png,NORMAL", "2.png,TB"), r"no image with the label COVID.* NORMAL, TB: set data\.classes"),
        (("1.png,NORMAL", "../2.png,TB", "3.png,COVID"), r"1 file outside of .*\.\./2\.png.* below data\.root: set"),
        (("1.png,NORMAL", "2.png,TB", "./2.png,COVID"), r"2\.png"),
    ],
)
def test_mistakes_in_labels_and_files(rows: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        index(table(tmp_path / "data", *rows, header="file,label"))


def test_rows_without_split_are_errors_if_others_have_one(tmp_path: Path) -> None:
    rows = ("1.png,NORMAL,train", "2.png,TB,", "3.png,COVID,test")
    with pytest.raises(DataError, match=r"no split for 1 of 3 images: 2\.png"):
        index(table(tmp_path, *rows, header="file,label,split"))
