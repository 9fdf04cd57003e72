"""Predictions on a terminal, and as lines for other programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.text import Text

from pneumo.console import PlainTable
from pneumo.data.notes import note_kind
from pneumo.escaping import escape_line
from pneumo.prediction.documents import show_path
from pneumo.prediction.predictions import NOTICE, UNCERTAIN, UNLIKE, Prediction, show_share
from pneumo.prediction.rules import Rules

_MOST = 40  # rows: about a screen


def to_terminal(predictions: Sequence[Prediction], rules: Rules, kept: bool) -> RenderableType:
    """Lay out predictions: a row for each, or, of many, a summary.

    Args:
        predictions: At least one.
        rules: The network's.
        kept: Whether a file has them all.
    """
    parts: list[RenderableType] = [Text(NOTICE, style="bold")]
    if len(predictions) <= _MOST:
        return Group(_rows(predictions, rules), *parts)
    if not kept:
        parts.insert(0, Text("--csv FILE and --json FILE keep the answer to each.", style="dim"))
    return Group(_summary(predictions, rules), *parts)


def to_lines(predictions: Sequence[Prediction]) -> Iterator[str]:
    """Format a line for each, whose fields are divided by tabs: path, probability, class, and remarks.

    Of an unreadable file the second and third are empty, and the last is the reason.
    """
    for prediction in predictions:
        readable = prediction.error is None
        share = f"{prediction.positive_probability:.6f}" if readable else ""
        words = "; ".join([*prediction.remarks, *([] if prediction.error is None else [prediction.error])])
        fields = share, escape_line(prediction.predicted_class or ""), escape_line(words)
        yield "\t".join((show_path(prediction.path), *fields))


def _rows(predictions: Sequence[Prediction], rules: Rules) -> PlainTable:
    several = rules.classes if len(rules.classes) > 2 else ()
    table = PlainTable(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("file", overflow="fold")
    for name in several or ("probability",):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("called", no_wrap=True)
    table.add_column("remarks", overflow="fold")
    for prediction in predictions:
        file = show_path(prediction.path)
        if prediction.error is not None:
            table.add_row(file, *[""] * len(several or (1,)), "", Text("unreadable, as said above", style="red"))
            continue
        shares = prediction.probability.values() if several else [prediction.positive_probability]
        remarks = Text("; ".join(prediction.remarks), style="yellow")
        table.add_row(file, *map(show_share, shares), prediction.predicted_class, remarks)
    return table


def _summary(predictions: Sequence[Prediction], rules: Rules) -> PlainTable:
    called = Counter(prediction.predicted_class for prediction in predictions)
    said = Counter(note_kind(remark) for prediction in predictions for remark in prediction.remarks)
    table = PlainTable(box=SIMPLE_HEAD, pad_edge=False, title=f"{len(predictions):,} files", title_justify="left")
    table.add_column("")
    table.add_column("films", justify="right")
    for name in rules.classes:
        table.add_row(f"called {name}", f"{called[name]:,}")
    first = {name: said.pop(name) for name in (UNCERTAIN, UNLIKE) if name in said}
    for remark, count in (*first.items(), *said.most_common()):
        table.add_row(Text(remark, style="yellow"), f"{count:,}")
    if called[None]:
        table.add_row(Text("unreadable, named above", style="red"), f"{called[None]:,}")
    return table
