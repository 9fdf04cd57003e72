import csv
import io

import pytest
from helpers.hostile import NAMES, formulas
from hypothesis import given, settings
from hypothesis import strategies as st

from pneumo.common.plain_data import escape_cell, format_rows, parse_csv, unescape_cell

TEXT = st.text(st.sampled_from("=+-@'\t\r\n,;\"a1.")) | st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@settings(max_examples=40)
@given(TEXT)
def test_any_text_is_read_as_it_was(text: str) -> None:
    assert unescape_cell(str(escape_cell(text))) == text
    columns, (row,) = parse_csv(format_rows([["a", f"={text}"], [text, "b"]]))
    assert columns == ["a", f"={text}"]
    assert row == [text, "b"]


@pytest.mark.parametrize("name", NAMES)
def test_no_cell_is_a_formula(name: str) -> None:
    rows = list(csv.reader(io.StringIO(format_rows([[name, f"'{name}"]]), newline="")))
    assert not formulas(rows[0])


@pytest.mark.parametrize("separator", ",;\t")
def test_a_path_is_one_cell_with_any_separator(separator: str) -> None:
    path = "a;=cmd|' /C calc'!A0\t=1.png"
    assert next(csv.reader([format_rows([[path, 0.5]])], delimiter=separator))[0].startswith(path)


def test_ordinary_rows_are_those_of_csv() -> None:
    row = ["train/NORMAL/IM-0115-0001.jpeg", "a 'b'", "'tis", -0.5, "-1.25e-05", "+0.1", None, True, "a,b", 1]
    expected = io.StringIO()
    csv.writer(expected, lineterminator="\n").writerow(row)
    assert format_rows([row]) == expected.getvalue()


def test_what_earlier_versions_wrote_is_read_as_it_is() -> None:
    assert parse_csv("path\n=a\n") == (["path"], [["=a"]])
