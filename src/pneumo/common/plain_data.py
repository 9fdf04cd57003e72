"""Readers and writers of JSON, YAML and CSV, bounded in size and depth, that never run code."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pneumo.common.text import plain

_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")  # also in the full width of East Asian scripts
_END = ";\t\r\n"  # csv quotes cells with one of its characters, which some spreadsheets take for separators too
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|[-+](?:inf|nan)", re.IGNORECASE)
_JSON_BYTES = 16 << 20
_YAML_BYTES = 256 << 10  # the configuration of a run takes 5 KB
_CSV_BYTES = 512 << 20  # of four million images
_DEPTH = 32  # lists and mappings in each other
_VALUES = 10_000  # of YAML, which OmegaConf reads at 5,000 values a second
_DIGITS = 300  # a larger whole number is no float, and a much larger one takes minutes to parse
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class PlainDataError(ValueError):
    """A file or text that is not plain data, with the reason in a few words: the caller's message adds the remedy."""


def format_rows(rows: Iterable[Iterable[object]]) -> str:
    """Format rows as CSV; `parse_csv` returns the same text."""
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


def hash_plain(value: Any) -> str:  # noqa: ANN401 (whatever JSON can hold)
    """Hash plain values, 16 hex digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def read_json(path: Path, limit: int = _JSON_BYTES) -> Any:  # noqa: ANN401 (whatever JSON can hold)
    """Read a JSON file of at most `limit` bytes; raises what `read_bytes` and `parse_json` raise."""
    return parse_json(_read_text(path, limit))


def parse_json(text: str) -> Any:  # noqa: ANN401 (whatever JSON can hold)
    """Parse JSON of finite numbers, unique keys and shallow nesting, or raise a PlainDataError."""
    try:
        found = json.loads(
            text, parse_constant=_parse_float, parse_float=_parse_float, parse_int=_parse_int, object_pairs_hook=_unique
        )
    except json.JSONDecodeError as error:
        raise PlainDataError(f"it is no JSON: {error.msg} in line {error.lineno}") from None
    except RecursionError:
        raise PlainDataError("it is nested too deeply") from None
    _check_depth(found)
    return found


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping, as OmegaConf would, into plain dictionaries and lists.

    Interpolations such as `${epochs}` or `${oc.env:HOME}` stay text.

    Raises:
        FileNotFoundError: There is no such file.
        PlainDataError: It cannot be read, is too large or nested too deeply, has anchors, aliases or tags, or is no
            mapping.
    """
    text = _read_text(path, _YAML_BYTES)
    try:
        _check_events(yaml.parse(text, Loader=_LOADER))
        found = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        raise PlainDataError(f"it is no YAML: {getattr(error, 'problem', None) or 'not text'}{line}") from None
    except PlainDataError:
        raise
    except (OmegaConfBaseException, TypeError, ValueError, OverflowError) as error:
        raise PlainDataError(f"it is no configuration: {plain(error)}") from None
    if not isinstance(found, dict):
        raise PlainDataError("it is no mapping")
    if unnamed := [key for key in found if not isinstance(key, str)]:
        raise PlainDataError(f"its key {unnamed[0]!r} is no text")
    return {str(key): value for key, value in found.items()}


def read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    """Read a CSV file of at most `_CSV_BYTES` bytes; raises what `read_bytes` and `parse_csv` raise."""
    return parse_csv(_read_text(path, _CSV_BYTES))


def parse_csv(text: str) -> tuple[list[str], list[list[str]]]:
    """Parse head and rows of CSV as `format_rows` writes it; raise a PlainDataError if rows differ in their lengths."""
    if "\0" in text:
        raise PlainDataError("it has null bytes")
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        head, *rows = [list(map(unescape_cell, row)) for row in lines] or [[]]
    except csv.Error as error:
        raise PlainDataError(f"it is no CSV: {error} in line {lines.line_num}") from None
    if bad := [number for number, row in enumerate(rows, 2) if row and len(row) != len(head)]:
        raise PlainDataError(f"line {bad[0]} does not have a value for each column")
    return head, [row for row in rows if row]  # blank lines count for nothing


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes; links to such files are followed.

    Raises:
        FileNotFoundError: There is no such file.
        PlainDataError: It is something else, larger, or cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would wait for ever, a device never end
            raise PlainDataError("it is no file")
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise PlainDataError(error.strerror or "it cannot be read") from error
    if len(content) > limit:
        raise PlainDataError(f"it is larger than {limit:,} bytes")
    return content


def _read_text(path: Path, limit: int) -> str:
    try:
        return read_bytes(path, limit).decode()
    except UnicodeDecodeError:
        raise PlainDataError("it is not UTF-8") from None


def _parse_float(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise PlainDataError(f"it has the number {text[:20]}, which is not finite")
    return value


def _parse_int(text: str) -> int:
    if len(text) > _DIGITS:
        raise PlainDataError(f"it has a number of {len(text):,} digits")
    return int(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        double = next(key for key in keys if keys.count(key) > 1)
        raise PlainDataError(f"it has the key {double[:40]!r} twice")
    return found


def _check_depth(value: object, depth: int = 0) -> None:
    if depth > _DEPTH:
        raise PlainDataError(f"it is nested more than {_DEPTH} deep")
    for held in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(held, dict | list):
            _check_depth(held, depth + 1)


def _check_events(events: Iterable[yaml.Event]) -> None:
    """Refuse what makes a small text large or calls for a type, before anything is built from it."""
    depth = values = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise PlainDataError("it has an anchor or alias")
        if getattr(event, "tag", None) is not None:
            raise PlainDataError(f"it has the tag {str(event.tag)[:40]}")
        values += isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEPTH:
            raise PlainDataError(f"it is nested more than {_DEPTH} deep")
        if values > _VALUES:
            raise PlainDataError(f"it has more than {_VALUES:,} values")
