import codecs
import csv
import io
import logging
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pneumo.common.plain_data import format_rows
from pneumo.data import spreadsheet
from pneumo.data.spreadsheet import read_spreadsheet
from pneumo.errors import DataError

HEADER = ("file", "label", "größe")
ROWS = (("ä 1.png", "NORMAL", "1,5"), ("b, c; d.png", "PNEUMONIA", 'said "no"\nand left'))
QUOTED = {
    separator: f'file{separator}label{separator} größe \r\n"ä 1.png"{separator}NORMAL{separator}"1,5"\r\n'
    f'"b, c; d.png"{separator} PNEUMONIA {separator}"said ""no""\nand left"\r\n'
    for separator in (",", ";", "\t")
}


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "labels.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "cp1252"])
def test_files_of_all_spreadsheets_give_the_same_rows(encoding: str, separator: str, tmp_path: Path) -> None:
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
    sheet = read_spreadsheet(write(tmp_path, mark + QUOTED[separator].encode(encoding)))
    assert (sheet.header, sheet.rows, sheet.lines) == (HEADER, ROWS, (2, 3))


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(
        st.lists(st.text(st.characters(exclude_categories=["C", "Z"], include_characters=' ,;\t\n"'), max_size=5)),
        min_size=2,
    ),
    separator=st.sampled_from(",;\t"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
)
def test_any_table_is_restored(rows: list[list[str]], separator: str, encoding: str) -> None:
    table = [("file", "label"), *(("x", "".join(row).lstrip("'").strip()) for row in rows)]
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=separator).writerows(table)
    with tempfile.TemporaryDirectory() as folder:
        sheet = read_spreadsheet(write(Path(folder), stream.getvalue().encode(encoding)))
    assert (sheet.header, sheet.rows) == (table[0], tuple((x, cell.strip()) for x, cell in table[1:]))


def test_only_the_fallback_encoding_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    read_spreadsheet(write(tmp_path, QUOTED[","]))
    assert not caplog.messages
    read_spreadsheet(write(tmp_path, QUOTED[","].encode("cp1252")))
    assert len(caplog.messages) == 1
    assert "Windows-1252" in caplog.messages[0]


def test_lines_are_those_at_which_rows_start(tmp_path: Path) -> None:
    text = 'sep=;\n\n;;\nfile;label\na;"x\ny\nz"\n\n;\nb;N\n\n\n'
    sheet = read_spreadsheet(write(tmp_path, text))
    assert sheet.header == ("file", "label")
    assert sheet.rows == (("a", "x\ny\nz"), ("b", "N"))
    assert sheet.lines == (5, 10)


@pytest.mark.parametrize(
    "text",
    [
        "file,label,,\na,N,,\nb,P,,\n",  # empty columns at the end, in all rows
        "file,label,,\na,N\nb,P,\n",  # or in some
        "file,label\na,N,,,\nb,P,\n",  # or only below the header
        ",file,label\n0,a,N\n1,b,P\n",  # index of pandas
        "file,label\ra,N\rb,P\r",  # old Macintosh
    ],
)
def test_columns_without_name_are_left_out(text: str, tmp_path: Path) -> None:
    sheet = read_spreadsheet(write(tmp_path, text))
    assert (sheet.header, sheet.rows) == (("file", "label"), (("a", "N"), ("b", "P")))


def test_a_single_column_is_read(tmp_path: Path) -> None:
    assert read_spreadsheet(write(tmp_path, "file\na b\nc\n")).rows == (("a b",), ("c",))


def test_escaped_formulas_are_restored(tmp_path: Path) -> None:
    rows = [("file", "label"), ("=1.png", "'quoted'"), ("-a.png", "'=x")]
    assert read_spreadsheet(write(tmp_path, format_rows(rows))).rows == tuple(rows[1:])


def test_quotes_inside_of_unquoted_cells_are_text(tmp_path: Path) -> None:
    assert read_spreadsheet(write(tmp_path, 'file,label\na 5" scan.png,N\n')).rows == (('a 5" scan.png', "N"),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\ufeff\n\n", "is empty"),
        (" , ,\n", "is empty"),
        ("file,label\n", "no rows"),
        ("file,label\n,\n\n", "no rows"),
        ("file,label\na,N\nb,P,x\nc\n", r"2 rows .* line 3 has 3 instead of 2.*comma"),
        ("file;label\na;N\nb\n", r"1 row .* line 3 has 1 instead of 2.*semicolon"),
        ('file,label\na,N\n"b,P\nc,N\n', "row that starts in line 3"),
        ('file,label\n"a"b,N\n', "line 2"),
        ("file,label\na\0,N\n", "null bytes"),
        ("file,label\na,N\n".encode("utf-16-le"), "null bytes"),
        ("file,label\nä,N\n".encode("utf-16-le") + b"\xff\xff\x00\xd8", "not valid UTF-8"),
        (codecs.BOM_UTF16_LE + b"f\0i", "not valid UTF-16"),
        (codecs.BOM_UTF8 + b"file,label\n\xe4,N\n", "not valid UTF-8"),
        (b"file,label\n\x81\x8d,N\n", "neither UTF-8 nor Windows-1252"),
        (b"PK\x03\x04...", "workbook"),
        (b"\xd0\xcf\x11\xe0...", "old Excel workbook"),
        (b"\x1f\x8b...", "gzip"),
        (b"\xff\xd8\xff...", "an image"),
        ("file,label\n" + "a" * 200_000 + ",N\n", "line 2"),
    ],
)
def test_other_files_are_rejected(content: str | bytes, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataError, match=message) as error:
        read_spreadsheet(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["best.ckpt", "best.onnx", "best.PT2"])
def test_networks_are_rejected_unread(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(spreadsheet, "read_bytes")
    (tmp_path / name).write_bytes(b"PK\x03\x04...")
    with pytest.raises(DataError, match=rf"{name} is a network, but a table must be a CSV file"):
        read_spreadsheet(tmp_path / name)


def test_missing_files_folders_and_large_files_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_spreadsheet(tmp_path / "labels.csv")
    with pytest.raises(DataError, match="not a file"):
        read_spreadsheet(tmp_path)
    path = write(tmp_path, QUOTED[","])
    monkeypatch.setattr(spreadsheet, "MAX_BYTES", 20)
    with pytest.raises(DataError, match="larger than 20 bytes"):
        read_spreadsheet(path)
