"""Rows of CSV files: text that a spreadsheet would run as a formula is written as text, and read back as it was."""

import csv
import re
from collections.abc import Iterable
from types import SimpleNamespace

_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")  # also in the full width of East Asian scripts
_END = ";\t\r\n"  # csv quotes cells with one of its characters, which some spreadsheets take for separators too
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|[-+](?:inf|nan)", re.IGNORECASE)


def format_rows(rows: Iterable[Iterable[object]]) -> str:
    """Format rows as CSV; `plain_data.parse_csv` returns the same text."""
    lines: list[str] = []
    stream = SimpleNamespace(write=lines.append)
    csv.writer(stream, lineterminator=_END).writerows(map(escape_cell, row) for row in rows)
    return "".join(line.removesuffix(_END) + "\n" for line in lines)


def escape_cell(value: object) -> object:
    """Put an apostrophe before text that a spreadsheet would take for a formula; numbers and other text stay.

    So does text that looks escaped already get another one: `unescape_cell` reverses both.
    """
    formula = isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{value}" if formula else value


def unescape_cell(text: str) -> str:
    """Return the text that `escape_cell` wrote."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text
