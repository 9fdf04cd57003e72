import csv
import io
import json
import os
from pathlib import Path

import pytest
from helpers.hostile_names import NAMES, formulas
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from pneumo.common.plain_data import (
    PlainDataError,
    escape_cell,
    format_rows,
    parse_csv,
    parse_json,
    read_json,
    read_yaml,
    unescape_cell,
)

_DEEP = 100_000
_YAML_BOMB = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)

_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=30)
@given(_PLAIN)
def test_parsed_json_equals_what_was_written(value: object) -> None:
    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": NaN}', "NaN"),
        ("[-Infinity]", "-Infinity"),
        ("1e999", "finite"),
        ("9" * 5_000, "5,000 digits"),
        ('{"a": 1, "a": 2}', "'a' twice"),
        ("[" * _DEEP, "nested"),
        ('{"a":' * _DEEP, "nested"),
        ("[" * 40 + "]" * 40, "nested"),
        ('{"a": 1', "line 1"),
        ("", "not valid JSON"),
    ],
)
def test_json_that_is_not_plain_data_is_rejected(text: str, reason: str) -> None:
    with pytest.raises(PlainDataError, match=reason):
        parse_json(text)


@pytest.mark.parametrize("content", [b"\xff\xfe{}", b'{"a": "\xe9"}'])
def test_a_file_of_another_encoding_is_rejected(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(PlainDataError, match="UTF-8"):
        read_json(tmp_path / "a.json")


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[1]")
    assert read_json(path, limit=3) == [1]
    with pytest.raises(PlainDataError, match="larger than 2 bytes"):
        read_json(path, limit=2)


def test_anything_but_a_file_is_rejected_and_a_missing_file_raises_its_own_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in (".", "pipe"):
        with pytest.raises(PlainDataError, match="not a file"):
            read_json(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "missing.json")


def test_yaml_equals_that_of_omegaconf_with_unresolved_interpolations(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "lr: 1e-3\nday: 2024-01-01\nroot: ${oc.env:HOME}\ndata: {seed: '${seed}', classes: [a, b], x: null}\n"
    )
    found = read_yaml(path)
    assert found == {
        "lr": 0.001,
        "day": "2024-01-01",
        "root": "${oc.env:HOME}",
        "data": {"seed": "${seed}", "classes": ["a", "b"], "x": None},
    }
    assert OmegaConf.to_yaml(found) == OmegaConf.to_yaml(OmegaConf.load(path))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (_YAML_BOMB, "anchor"),
        ("a: &b 1\nc: *b\n", "anchor"),
        ("a: !!python/object/apply:os.getcwd []", "tag"),
        ("a: !!binary aGk=", "tag"),
        ("a: " + "[" * _DEEP, "nesting"),
        ("".join(" " * n + "a:\n" for n in range(300)), "nested"),
        ("a: [" + "1," * 20_000 + "1]", "values"),
        ("a: b: c", "line 1"),
        ("a: 1\na: 2\n", "duplicate"),
        ("? [a]\n: 1\n", "YAML"),
        ("null: 1\n", "configuration|text"),
        ("1: 1\n", "not text"),
        ("- 1\n", "not a mapping"),
        ("a: " + "9" * 5_000, "configuration"),
        ("a: \x00", "YAML"),
        ("a: " + "x" * 300_000, "larger"),
    ],
)
def test_yaml_that_is_not_plain_data_is_rejected(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(PlainDataError, match=reason):
        read_yaml(path)


TEXT = st.text(st.sampled_from("=+-@'\t\r\n,;\"a1.")) | st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@settings(max_examples=40)
@given(TEXT)
def test_parsed_cells_equal_what_was_written(text: str) -> None:
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


def test_ordinary_rows_equal_those_of_the_csv_module() -> None:
    row = ["train/NORMAL/IM-0115-0001.jpeg", "a 'b'", "'tis", -0.5, "-1.25e-05", "+0.1", None, True, "a,b", 1]
    expected = io.StringIO()
    csv.writer(expected, lineterminator="\n").writerow(row)
    assert format_rows([row]) == expected.getvalue()


def test_unescaped_formulas_of_earlier_versions_are_read() -> None:
    assert parse_csv("path\n=a\n") == (["path"], [["=a"]])
