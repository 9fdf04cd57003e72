import io
import logging
import sys
from functools import partial
from pathlib import Path

import pytest
import rich
from helpers.hostile_names import CONTROLS, NAMES, is_harmless
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pneumo.common import terminal
from pneumo.common.terminal import PlainTable, print_line, warn
from pneumo.config.console import ConsoleHandler, RecordFormatter, message_of


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Console:
    found = Console(file=io.StringIO(), width=200, force_terminal=True, color_system=None)
    monkeypatch.setattr(rich, "get_console", lambda: found)
    return found


def printed(console: Console) -> str:
    stream = console.file
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_tables_show_names_literally(name: str, console: Console) -> None:
    table = PlainTable(title=name)
    table.add_column(name)
    table.add_row(name)
    table.add_row(Text(name))
    console.print(table)
    assert is_harmless(printed(console))
    visible = [part for part in ("[/y][bold]:smile:", "$x^$", "<img") if part in name]
    assert all(printed(console).count(part) == 4 for part in visible)


def test_ordinary_tables_equal_those_of_rich(console: Console) -> None:
    for kind in (partial(Table, title_justify="left", box=SIMPLE_HEAD, pad_edge=False), PlainTable):
        table = kind(title="resnext · sgd", title_style="bold")
        table.add_column("95\u00a0% interval", justify="right")
        table.add_column(Text("two\nlines") if kind is PlainTable else "two\nlines", style="dim")
        table.add_row("0.9", None, style="yellow")
        console.print(table)
    lines = printed(console).splitlines()
    assert lines[: len(lines) // 2] == lines[len(lines) // 2 :]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_printed_on_one_line(name: str, console: Console, capsys: pytest.CaptureFixture[str]) -> None:
    print_line(f"page {name}")
    warn(f"{name} is text.")
    for text in (printed(console), capsys.readouterr().err):
        assert is_harmless(text)
        assert text.count("\n") == 1


def test_a_progress_bar_shows_its_title_literally(console: Console) -> None:
    with terminal.track("Decoding [/y] {x}", 1) as update:
        update(1)
    assert "Decoding [/y] {x}" in printed(console)


@pytest.mark.parametrize("name", NAMES)
def test_no_name_can_forge_a_log_record(name: str, console: Console) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(RecordFormatter("[%(asctime)s][%(name)s][%(levelname)s] %(message)s"))
    try:
        raise ValueError(name)
    except ValueError as error:
        failed = logging.LogRecord("x", logging.ERROR, "", 0, "FAILED %s %d", (Path(name), 1), sys.exc_info())
        handler.emit(failed)
        failed.exc_info = failed.exc_text = None
        failed.args = (error, 1)
    handler.emit(failed)
    ConsoleHandler().emit(failed)
    assert is_harmless(stream.getvalue())
    assert is_harmless(printed(console))
    assert sum(line.startswith("[") for line in stream.getvalue().splitlines()) == 2
    assert printed(console).count("\n") == 1


def test_a_message_keeps_its_own_line_breaks() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, f"2 images:\n- a{CONTROLS}\n- b", (), None)
    assert len(message_of(record).splitlines()) == 3
    assert is_harmless(message_of(record))
    assert message_of(logging.LogRecord("x", logging.INFO, "", 0, "%(a)s", ({"a": 1},), None)) == "1"
