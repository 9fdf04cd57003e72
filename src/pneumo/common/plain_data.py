"""Safe readers and writers of JSON, YAML and CSV, with limits on size and nesting depth."""

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

from pneumo.common.text import short_line

_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")  # also full-width characters of East Asian scripts
# Line terminator for csv.writer, which quotes cells that contain any of its characters. Spreadsheets may split cells at
# ; or tab, so these characters are included.
_END = ";\t\r\n"
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|[-+](?:inf|nan)", re.IGNORECASE)
_JSON_BYTES = 16 << 20
_YAML_BYTES = 256 << 10  # the configuration of a run has about 5 kB
_CSV_BYTES = 512 << 20  # enough for four million images
_DEPTH = 32  # nesting of lists and mappings
_VALUES = 10_000  # of YAML, which OmegaConf reads at 5,000 values per second
_DIGITS = 300  # a longer integer overflows a float, and a much longer one takes minutes to parse
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class PlainDataError(ValueError):
    """A file or text is not plain data; the message is a clause, to which callers add the file and the fix."""


def format_rows(rows: Iterable[Iterable[object]]) -> str:
    """Format rows as CSV; `parse_csv` restores them as text."""
    lines: list[str] = []
    stream = SimpleNamespace(write=lines.append)
    csv.writer(stream, lineterminator=_END).writerows(map(escape_cell, row) for row in rows)
    return "".join(line.removesuffix(_END) + "\n" for line in lines)


def escape_cell(value: object) -> object:
    """Prefix text that a spreadsheet would read as a formula with an apostrophe; return other values unchanged.

    Text that already looks escaped gets another apostrophe, so that `unescape_cell` can reverse the escape.
    """
    formula = isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{value}" if formula else value


def unescape_cell(text: str) -> str:
    """Return the text that `escape_cell` escaped."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def hash_plain(value: Any) -> str:  # noqa: ANN401 (any JSON value)
    """Return the SHA-256 of plain values as JSON, the first 16 hex digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def read_json(path: Path, limit: int = _JSON_BYTES) -> Any:  # noqa: ANN401 (any JSON value)
    """Read a JSON file of at most `limit` bytes; raise the errors of `read_bytes` and `parse_json`."""
    return parse_json(_read_text(path, limit))


def parse_json(text: str) -> Any:  # noqa: ANN401 (any JSON value)
    """Parse JSON with finite numbers, unique keys and limited nesting; raise a PlainDataError for anything else."""
    try:
        value = json.loads(
            text, parse_constant=_parse_float, parse_float=_parse_float, parse_int=_parse_int, object_pairs_hook=_unique
        )
    except json.JSONDecodeError as error:
        raise PlainDataError(f"it is not valid JSON: {error.msg} in line {error.lineno}") from None
    except RecursionError:
        raise PlainDataError("it is nested too deeply") from None
    _check_depth(value)
    return value


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that contains a mapping into plain dictionaries and lists, with OmegaConf's rules.

    Interpolations such as `${epochs}` or `${oc.env:HOME}` are not resolved.

    Raises:
        FileNotFoundError: The file does not exist.
        PlainDataError: The file cannot be read, is too large, is nested too deeply, has anchors, aliases or tags, or
            is not a mapping.
    """
    text = _read_text(path, _YAML_BYTES)
    try:
        _check_events(yaml.parse(text, Loader=_LOADER))
        content = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        raise PlainDataError(f"it is not valid YAML: {getattr(error, 'problem', None) or 'not text'}{line}") from None
    except PlainDataError:
        raise
    except (OmegaConfBaseException, TypeError, ValueError, OverflowError) as error:
        raise PlainDataError(f"it is not a configuration: {short_line(error)}") from None
    if not isinstance(content, dict):
        raise PlainDataError("it is not a mapping")
    if invalid := [key for key in content if not isinstance(key, str)]:
        raise PlainDataError(f"its key {invalid[0]!r} is not text")
    return {str(key): value for key, value in content.items()}


def read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    """Read a CSV file of at most `_CSV_BYTES` bytes; raise the errors of `read_bytes` and `parse_csv`."""
    return parse_csv(_read_text(path, _CSV_BYTES))


def parse_csv(text: str) -> tuple[list[str], list[list[str]]]:
    """Parse CSV of `format_rows` into header and rows; raise a PlainDataError if rows differ in length."""
    if "\0" in text:
        raise PlainDataError("it contains null bytes")
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        head, *rows = [list(map(unescape_cell, row)) for row in lines] or [[]]
    except csv.Error as error:
        raise PlainDataError(f"it is not valid CSV: {error} in line {lines.line_num}") from None
    if bad := [number for number, row in enumerate(rows, 2) if row and len(row) != len(head)]:
        raise PlainDataError(f"line {bad[0]} does not have a value for each column")
    return head, [row for row in rows if row]  # without blank lines


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a regular file, or a link to one, of at most `limit` bytes.

    Raises:
        FileNotFoundError: The file does not exist.
        PlainDataError: The path is not a regular file, or the file is larger or cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe could block, and a device might never end
            raise PlainDataError("it is not a file")
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
        raise PlainDataError(f"it contains the number {text[:20]}, which is not finite")
    return value


def _parse_int(text: str) -> int:
    if len(text) > _DIGITS:
        raise PlainDataError(f"it contains a number of {len(text):,} digits")
    return int(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        keys = [key for key, _ in pairs]
        duplicate = next(key for key in keys if keys.count(key) > 1)
        raise PlainDataError(f"it contains the key {duplicate[:40]!r} twice")
    return unique


def _check_depth(value: object, depth: int = 0) -> None:
    if depth > _DEPTH:
        raise PlainDataError(f"it is nested more than {_DEPTH} levels deep")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(item, dict | list):
            _check_depth(item, depth + 1)


def _check_events(events: Iterable[yaml.Event]) -> None:
    """Reject aliases, tags and excessive nesting before any object is built: aliases can expand a small file."""
    depth = values = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise PlainDataError("it contains an anchor or alias")
        if getattr(event, "tag", None) is not None:
            raise PlainDataError(f"it contains the tag {str(event.tag)[:40]}")
        values += isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEPTH:
            raise PlainDataError(f"it is nested more than {_DEPTH} levels deep")
        if values > _VALUES:
            raise PlainDataError(f"it contains more than {_VALUES:,} values")
