import csv
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers.data_modules import OPTIONS
from helpers.mixed_tables import CLASSES, SECRET, write_mixed_table

from pneumo.data.table_datamodule import TableDataModule
from pneumo.errors import ConfigError, DataError

TABLE_OPTIONS: dict[str, Any] = {
    "preset": None,
    "columns": {},
    "mapping": None,
    "site": None,
    "test_fraction": 0.2,
    "split": "patient",
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 90 images; tests must not modify it."""
    return write_mixed_table(tmp_path_factory.mktemp("mixed"), 45)


def open_table(table: Path | None, **changes: object) -> TableDataModule:
    options: dict[str, Any] = {**OPTIONS, "classes": list(CLASSES), "val_fraction": 0.25, **TABLE_OPTIONS, **changes}
    data = TableDataModule(None if table is None else str(table), **options)
    data.prepare_data()
    data.setup()
    return data


def rewrite(table: Path, name: str, **columns: list[str]) -> Path:
    """Write a copy of a table with changed or new columns, next to it."""
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows = [{**row, **{key: values[i % len(values)] for key, values in columns.items()}} for i, row in enumerate(rows)]
    with (table.parent / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return table.parent / name


def paths(data: TableDataModule, split: str) -> list[str]:
    return [image.path for image in data.splits[split]]


def test_patients_are_in_one_split_and_the_test_images_do_not_depend_on_seed_or_fold(table: Path) -> None:
    first, other, fold = (open_table(table, **o) for o in ({}, {"seed": 1}, {"split": "kfold", "folds": 3}))
    assert paths(first, "test") == paths(other, "test") == paths(fold, "test")
    assert paths(first, "val") != paths(other, "val")
    patients = [{image.patient for image in first.splits[name]} for name in ("train", "val", "test")]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 45
    assert sum(map(len, first.splits.values())) == len(first.radiographs) == 90
    assert len(first.splits["test"]) == pytest.approx(18, abs=4)
    assert first.non_test_indices == list(range(90))
    assert first.data_hash == other.data_hash


def test_patients_come_from_the_table_or_the_header_and_never_reveal_its_id(table: Path) -> None:
    data = open_table(table)
    names = {image.path: image.patient for image in data.radiographs}
    assert names["images/0-0.png"] == names["images/0-1.dcm"] == "P0"
    assert names["images/9-0.dcm"] == names["images/9-1.dcm"]
    assert names["images/9-0.dcm"].startswith("header-")
    assert names["images/9-0.dcm"] != names["images/19-0.dcm"]
    assert SECRET[:6] not in str(data.radiographs)


def test_the_column_split_defines_the_test_images(table: Path) -> None:
    with_column = rewrite(table, "split.csv", split=[*["Training"] * 6, *["dev"] * 6, *["TEST"] * 6])
    official, patient = (open_table(with_column, split=split) for split in ("official", "patient"))
    assert Counter(len(images) for images in official.splits.values()) == {30: 3}
    assert paths(patient, "test") == paths(official, "test")
    assert set(paths(patient, "val")) != set(paths(official, "val"))
    assert official.data_hash != open_table(table).data_hash


def test_a_column_split_without_validation_images_holds_out_patients(
    table: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = open_table(rewrite(table, "two.csv", split=[*["train"] * 12, *["test"] * 6]), split="official")
    assert data.split == "patient"
    assert "no validation images" in caplog.text
    assert set(data.splits) == {"train", "val", "test"}


@pytest.mark.parametrize(("images", "shared"), [(2, False), (4, True)])
@pytest.mark.parametrize("options", [{"split": "official"}, {"split": "patient"}, {"split": "site", "site": "B"}])
def test_patients_of_test_images_in_training_are_reported(
    options: dict[str, str], images: int, shared: bool, table: Path, caplog: pytest.LogCaptureFixture
) -> None:
    patients = [f"P{i // images}" for i in range(90)]
    splits = [*["train"] * 6, *["val"] * 6, *["test"] * 6]
    open_table(rewrite(table, "shared.csv", patient=patients, split=splits), **options)
    assert ("have patients of test images" in caplog.text) == shared


def test_a_site_is_left_out(table: Path) -> None:
    data = open_table(table, split="site", site="B")
    assert {image.site for image in data.splits["test"]} == {"B"}
    assert {image.site for name in ("train", "val") for image in data.splits[name]} == {"A"}
    assert sum(image.site == "B" for image in data.radiographs) == len(data.splits["test"])
    assert data.split == "site"


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({}, {"split": "site", "site": "C"}, r"data\.site=C is not a site.* A \(\d+ images\), B"),
        ({"site": ["A"]}, {"split": "site", "site": "A"}, r"at least two sites.* of one: A"),
        ({"site": ["A", "", "B"]}, {"split": "site", "site": "A"}, r"30 of 90 have none, for example images/"),
        ({}, {"split": "official"}, r"data\.split=official requires test images"),
        ({"split": ["train"]}, {"split": "official"}, r"data\.split=official requires test images"),
        ({}, {"test_fraction": 0.01}, r"too few for data\.test_fraction=0\.01"),
        ({"label": ["NORMAL", "TB", "COVID"]}, {"classes": ["NORMAL", "TB"]}, r"not in data\.classes=\[NORMAL,TB\]"),
        (
            {"site": ["A", "A", "B"], "label": ["NORMAL", "TB", "TB"]},
            {"classes": ["NORMAL", "TB"], "split": "site", "site": "B"},
            r"test images .*data\.site=B have no image of NORMAL",
        ),
    ],
)
def test_impossible_splits_are_errors(
    columns: dict[str, list[str]], options: dict[str, object], message: str, table: Path
) -> None:
    with pytest.raises(DataError, match=message):
        open_table(rewrite(table, "mistake.csv", **columns), **options)


def test_a_missing_table_and_an_unknown_split_are_errors(table: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.table=null"):
        open_table(None)
    with pytest.raises(ConfigError, match=r"data\.split=nosuch is unknown.*data\.split=site"):
        open_table(table, split="nosuch")
    with pytest.raises(DataError, match=r"data\.root=.*nosuch is not a folder"):
        open_table(table, root=str(table.parent / "nosuch"))
    with pytest.raises(DataError, match=r"data\.table=.*nosuch\.csv is not a file"):
        open_table(table.parent / "nosuch.csv")
