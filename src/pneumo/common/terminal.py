"""Terminal output: messages, tables and progress bars."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import rich
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pneumo.common.text import escape_line, escape_paragraph, escape_prose

_log = logging.getLogger(__name__)

LOG_INTERVAL = 10.0  # seconds between log lines about progress, without a terminal


def print_line(text: str, style: str | None = None, wrap: bool = False) -> None:
    """Print one line on the console, above any progress bar; long lines are wrapped only with `wrap`."""
    line = escape_line(text, "\xa0")
    rich.get_console().print(line, style=style, markup=False, emoji=False, highlight=False, soft_wrap=not wrap)


def warn(text: str) -> None:
    """Print a message as one line on standard error."""
    print(escape_paragraph(text), file=sys.stderr)


class PlainTable(Table):
    """Table of literal text in the style of all commands.

    Line breaks are escaped in a `str` and kept in a `Text`.
    """

    def __init__(self, title: str = "", **options: Any) -> None:  # noqa: ANN401
        """Initialize with the options of `rich.table.Table`."""
        style = {"title_style": "bold", "title_justify": "left", "box": SIMPLE_HEAD, "pad_edge": False, **options}
        super().__init__(title=_plain(title, style["title_style"]) if title else None, **style)

    def add_column(self, header: RenderableType = "", *arguments: Any, **options: Any) -> None:  # noqa: ANN401
        """Add a column."""
        super().add_column(_plain(header), *arguments, **options)

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:  # noqa: ANN401
        """Add a row."""
        super().add_row(*map(_plain, cells), **options)


def _plain(cell: Any, style: str = "") -> Any:  # noqa: ANN401 (anything that rich renders)
    if isinstance(cell, str):
        return Text(escape_line(cell, "\xa0"), style)
    if isinstance(cell, Text) and not cell.plain.isprintable():
        cell = cell.copy()
        cell.plain = escape_prose(cell.plain)
    return cell


@contextmanager
def track(title: str, total: int, start: int = 0) -> Iterator[Callable[[int], None]]:
    """Show progress as a bar or, without a terminal, as log lines; yield a function to report progress.

    The function takes the total number of finished items.

    Args:
        title: Title of the bar and the log lines, such as `Decoding images`.
        total: Number of items.
        start: Number of items that an earlier run finished.
    """
    started = time.perf_counter()
    _log.info("%s: %d%s", title, total, f", resuming after {start}" if start else "")
    console = rich.get_console()  # shared with the log, whose lines are then printed above the bar
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(title, total=total, completed=start)
            yield lambda done: bar.update(task, completed=done)
    else:
        yield _lines(title, total)
    seconds = time.perf_counter() - started
    _log.info("%s: done in %.1f s (%.0f per second)", title, seconds, (total - start) / max(seconds, 1e-9))


def _lines(title: str, total: int) -> Callable[[int], None]:
    last = time.perf_counter()

    def report(done: int) -> None:
        nonlocal last
        if time.perf_counter() - last > LOG_INTERVAL:
            last = time.perf_counter()
            _log.info("%s: %d of %d", title, done, total)

    return report
