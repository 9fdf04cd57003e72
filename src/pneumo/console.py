"""What commands print: text as it is, with no markup, emoji codes or control characters in it."""

import sys
from typing import Any

import rich
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from pneumo.escaping import escape_line, escape_paragraph, escape_prose


def tell(text: str, style: str | None = None, wrap: bool = False) -> None:
    """Print a line on the console that progress bars share; it is cut into several only with `wrap`."""
    line = escape_line(text, "\xa0")
    rich.get_console().print(line, style=style, markup=False, emoji=False, highlight=False, soft_wrap=not wrap)


def warn(text: str) -> None:
    """Print a paragraph on standard error."""
    print(escape_paragraph(text), file=sys.stderr)


class PlainTable(Table):
    """A table of text as it is, in the style that all commands share.

    A `Text` may have several lines; those of a `str` are escaped.
    """

    def __init__(self, title: str = "", **options: Any) -> None:  # noqa: ANN401
        """Pass what `rich.table.Table` requires."""
        style = {"title_style": "bold", "title_justify": "left", "box": SIMPLE_HEAD, "pad_edge": False, **options}
        super().__init__(title=_plain(title, style["title_style"]) if title else None, **style)

    def add_column(self, header: RenderableType = "", *arguments: Any, **options: Any) -> None:  # noqa: ANN401
        """Add a column."""
        super().add_column(_plain(header), *arguments, **options)

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:  # noqa: ANN401
        """Add a row."""
        super().add_row(*map(_plain, cells), **options)


def _plain(cell: Any, style: str = "") -> Any:  # noqa: ANN401 (whatever rich renders)
    if isinstance(cell, str):
        return Text(escape_line(cell, "\xa0"), style)
    if isinstance(cell, Text) and not cell.plain.isprintable():
        cell = cell.copy()
        cell.plain = escape_prose(cell.plain)
    return cell
