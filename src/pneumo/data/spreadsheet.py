"""Rows of a CSV file as hospitals export it: encoding, separator and line numbers."""

import codecs
import csv
import io
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from pneumo.common.plain_data import PlainDataError, read_bytes, unescape_cell
from pneumo.common.text import count_noun
from pneumo.errors import DataError

_log = logging.getLogger(__name__)
MAX_BYTES = 256 << 20  # enough for two million images
_SEPARATORS = (",", ";", "\t")
_EMPTY = " ,;\t\r\n"  # characters of lines without text
_SEPARATOR_LINE = re.compile(r"\s*sep=(.)\r?\n", re.IGNORECASE)  # first line of some files, read by Excel only
_BYTE_ORDER_MARKS = {  # the mark of UTF-16 is the start of that of UTF-32
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_NETWORKS = (".ckpt", ".onnx", ".pt2")
_FIX = "save the table as CSV UTF-8"
_OTHER_FORMATS = {  # description by file signature
    b"PK\x03\x04": "an Excel or OpenDocument workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\x1f\x8b": "compressed with gzip",
    b"%PDF": "a PDF document",
    b"PAR1": "a Parquet file",
    b"\xff\xd8\xff": "an image",
    b"\x89PNG": "an image",
}


@dataclass(frozen=True)
class Spreadsheet:
    """Header and rows of a CSV file, stripped of spaces around the cells."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]  # each with one cell per column; rows without any text are left out
    lines: tuple[int, ...]  # number of the line in the file at which each row starts


def read_spreadsheet(path: Path) -> Spreadsheet:
    """Read a CSV file in any encoding and with any separator that spreadsheets write.

    The encoding is that of the byte order mark (UTF-8, UTF-16 or UTF-32), else UTF-8, else Windows-1252, with a logged
    note. The separator is a comma, a semicolon or a tab: the one that splits the header into most columns. Columns
    without a name are left out, such as the index that pandas writes.

    Raises:
        DataError: The file does not exist, is no CSV file, has no header or no rows, or has rows whose length differs
            from that of the header.
    """
    text = _decode(path, _read(path))
    if separator_line := _SEPARATOR_LINE.match(text):
        separator, skipped = separator_line[1], 1
        text = text[separator_line.end() :]
    else:
        separator, skipped = _detect_separator(text), 0
    records = [(line + skipped, cells) for line, cells in _parse(path, text, separator) if any(cells)]
    if not records:
        raise DataError(f"{path} is empty: a table needs a header line and one line per image. Export it again.")
    header = records[0][1]
    if len(records) == 1:
        raise DataError(
            f"{path} has a header, but no rows: a table needs one line per image below the header. Export it again."
        )
    named = [i for i, name in enumerate(header) if name]
    width = named[-1] + 1
    _check_lengths(path, records, width, len(header), separator)
    select = itemgetter(*named) if len(named) > 1 else lambda cells: (cells[named[0]],)
    rows = tuple(select(cells) for _, cells in records[1:])
    return Spreadsheet(tuple(header[i] for i in named), rows, tuple(line for line, _ in records[1:]))


def _read(path: Path) -> bytes:
    if path.suffix.lower() in _NETWORKS and path.is_file():  # before reading: networks are large
        raise DataError(f"{path} is a network, but a table must be a CSV file. Use the path of a CSV file.")
    try:
        content = read_bytes(path, MAX_BYTES)
    except FileNotFoundError:
        raise DataError(f"The table {path} does not exist. Use the path of a CSV file.") from None
    except PlainDataError as error:
        raise DataError(f"The table {path} cannot be read: {error}. Use a CSV file with one line per image.") from None
    if kind := next((kind for signature, kind in _OTHER_FORMATS.items() if content.startswith(signature)), None):
        raise DataError(f"{path} is {kind}, but a table must be a CSV file: {_FIX}.")
    return content


def _decode(path: Path, content: bytes) -> str:
    mark, encoding = next((pair for pair in _BYTE_ORDER_MARKS.items() if content.startswith(pair[0])), (b"", "utf-8"))
    content = content[len(mark) :]
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if mark or b"\0" in content:
            raise DataError(f"{path} is not valid {encoding.upper()} (byte {error.start:,}): {_FIX}.") from None
        text = _decode_windows(path, content)
    if "\0" in text:
        raise DataError(f"{path} contains null bytes, so it is not a text file, or is UTF-16 without its mark: {_FIX}.")
    return text


def _decode_windows(path: Path, content: bytes) -> str:
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError:
        raise DataError(f"{path} is neither UTF-8 nor Windows-1252: {_FIX}.") from None
    _log.warning("%s is not UTF-8 and was read as Windows-1252. If letters are wrong, %s.", path, _FIX)
    return text


def _detect_separator(text: str) -> str:
    """Return the separator that splits the first line with text into most cells, quotes respected."""

    def count(separator: str) -> int:
        rows = csv.reader(io.StringIO(text[: 1 << 20], newline=""), delimiter=separator)
        try:
            return next((len(row) for row in rows if any(cell.strip(_EMPTY) for cell in row)), 0)
        except csv.Error:
            return 0

    return max(_SEPARATORS, key=count)


def _parse(path: Path, text: str, separator: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the first line number and the cells of each row."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    line = 1
    try:
        for row in rows:
            yield line, tuple(unescape_cell(cell).strip() if cell[:1] == "'" else cell.strip() for cell in row)
            line = rows.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path} is not valid CSV: {error} in the row that starts in line {line}. Each quote inside of a quoted "
            f"cell must be doubled, and each quoted cell closed: {_FIX}."
        ) from None


def _check_lengths(
    path: Path, records: Sequence[tuple[int, tuple[str, ...]]], width: int, most: int, separator: str
) -> None:
    """Raise a DataError for rows without a cell for each named column, or with text beyond the header."""
    bad = [(line, cells) for line, cells in records if len(cells) < width or any(cells[most:])]
    if not bad:
        return
    line, cells = bad[0]
    name = {",": "comma", ";": "semicolon", "\t": "tab"}.get(separator, separator)
    raise DataError(
        f"{path} has {count_noun(len(bad), 'row')} with more or fewer cells than its header has "
        f"columns: line {line} has {len(cells)} instead of {most}. The separator is a {name}, so a cell that contains "
        "one must be quoted: correct these lines, or export the table again."
    )
