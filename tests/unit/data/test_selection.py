from pathlib import Path
from typing import Any

import pytest
from helpers.labelled_site import write_site

from pneumo.data.option_style import PYTHON
from pneumo.data.selection import DataSelection, merge_sets, parse_pairs
from pneumo.errors import ConfigError, DataError


def test_tables_pair_with_folders_in_order(tmp_path: Path) -> None:
    tables = [write_site(tmp_path / name, images=4) for name in ("a", "b")]
    sets = DataSelection([tmp_path / "a", tmp_path / "b"], tables).read()
    assert [each.name for each in sets] == ["a", "b"]
    assert all(len(each.images) == 4 for each in sets)
    alone = DataSelection((), tables).read()
    assert [each.name for each in alone] == ["a", "b"]
    assert DataSelection((tmp_path / "a",), tables[:1]).files == tables[:1]


def test_equal_names_are_numbered(tmp_path: Path) -> None:
    table = write_site(tmp_path / "a", images=4)
    assert [each.name for each in DataSelection([table, table]).read()] == [
        f"{tmp_path.name}/a 1",
        f"{tmp_path.name}/a 2",
    ]


def test_equal_names_of_tables_get_the_folder_above(tmp_path: Path) -> None:
    tables = [write_site(tmp_path / hospital / "test", images=4) for hospital in ("x", "y")]
    assert [each.name for each in DataSelection(tables).read()] == ["x/test", "y/test"]


def test_sets_of_one_folder_are_named_by_their_tables(tmp_path: Path) -> None:
    table = write_site(tmp_path / "a", images=4)
    other = table.with_name("night.csv")
    other.write_text(table.read_text())
    folders = [tmp_path / "a", tmp_path / "a"]
    assert [each.name for each in DataSelection(folders, [table, other]).read()] == ["a", "night"]
    assert [each.name for each in DataSelection(folders, [table, table]).read()] == [
        f"{tmp_path.name}/a 1",
        f"{tmp_path.name}/a 2",
    ]


@pytest.mark.parametrize(
    ("given", "split"), [("valid", "val"), ("Training", "train"), ("ALL", "all"), ("other", "other")]
)
def test_splits_have_several_spellings(given: str, split: str) -> None:
    assert DataSelection(split=given).split == split


def test_a_split_or_preset_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    table = write_site(tmp_path, images=4)
    options: dict[str, Any]
    for options in ({"split": None}, {"split": 1}, {"preset": 1}):
        (value,) = options.values()
        with pytest.raises(ConfigError, match=rf'="{value}" is unknown: it must be'):
            DataSelection([table], **options, style=PYTHON).read()


def test_absent_tables_name_their_option(tmp_path: Path) -> None:
    for data in ([], [tmp_path]):
        with pytest.raises(DataError, match=r"--labels nowhere.csv does not exist"):
            DataSelection(data, [Path("nowhere.csv")]).read()
        with pytest.raises(DataError, match=r"--labels .* is a folder: it must be a CSV table"):
            DataSelection(data, [tmp_path]).read()
    with pytest.raises(DataError, match=r'^labels="nowhere.csv" does not exist'):
        DataSelection((), [Path("nowhere.csv")], style=PYTHON).read()


def test_missing_data_and_surplus_tables_are_errors(tmp_path: Path) -> None:
    table = write_site(tmp_path, images=4)
    with pytest.raises(ConfigError, match="No data"):
        DataSelection().read()
    with pytest.raises(ConfigError, match=r"2 tables \(--labels\) .* 1 folder: .* Repeat the folder"):
        DataSelection([tmp_path], [table, table]).read()
    with pytest.raises(ConfigError, match=r"^2 tables \(--labels\) .* a table itself: --labels requires"):
        DataSelection([table], [table, table]).read()


def test_merged_sets_keep_their_names_as_sites_and_all_columns(tmp_path: Path) -> None:
    first, second = write_site(tmp_path / "a", images=4), write_site(tmp_path / "b", images=4, seed=1)
    second.write_text(second.read_text().replace("view", "projection"))
    sets = DataSelection([first, second]).read()
    merged = merge_sets(sets)
    assert merged.extra_columns == ("age", "sex", "view", "projection")
    assert [image.site for image in merged.images] == ["a"] * 4 + ["b"] * 4
    assert len({image.name for image in merged.images}) == 8
    assert (merged.images[0].extra[3], merged.images[7].extra[2]) == ("", "")
    assert {image.extra[3] for image in merged.images[4:]} <= {"AP", "PA"}
    assert merge_sets(sets[:1]) is sets[0]


@pytest.mark.parametrize("text", ["label", "=NORMAL", "label=", " = "])
def test_pairs_have_two_sides(text: str) -> None:
    with pytest.raises(ConfigError, match="--map"):
        parse_pairs("--map", [text], "A=B")


def test_pairs_are_stripped_and_unique() -> None:
    pairs = parse_pairs("--column", ["file = Image Index", "label=x=y"], "A=B")
    assert pairs == {"file": "Image Index", "label": "x=y"}
    with pytest.raises(ConfigError, match="twice for 'file'"):
        parse_pairs("--column", ["file=a", "file=b"], "A=B")
