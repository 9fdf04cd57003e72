"""Predictions as JSON, CSV and terminal tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.text import Text

from pneumo import __version__
from pneumo.common.plain_data import escape_cell, format_rows
from pneumo.common.terminal import PlainTable
from pneumo.common.text import escape_line
from pneumo.data.radiograph import note_kind
from pneumo.inference.backend import Rules
from pneumo.inference.prediction import NOTICE, UNCERTAIN, UNLIKE, Prediction, show_share

_COLUMNS = ["path", "probability", "called", "uncertain", "unlike", "unlike_score", "notes", "error"]
_MARGIN = "logit_margin"


def to_json(predictions: Sequence[Prediction], rules: Rules, network: Path) -> str:
    """Write predictions as JSON, with what is needed to understand them; what is not known is null."""
    about = {
        "notice": NOTICE,
        "pneumo_version": __version__,
        "checkpoint": show_path(network),
        "network": rules.name,
        "classes": rules.classes,
        "threshold": rules.threshold if rules.positive_class is not None else None,
        "margin": rules.margin,
    }
    records = [_record(prediction) for prediction in predictions]
    return json.dumps({**about, "predictions": records}, indent=1, allow_nan=False) + "\n"


def to_csv(predictions: Sequence[Prediction], rules: Rules) -> str:
    """Write predictions as CSV, a row a file; what is not known is empty.

    Of more than two classes each has a column of its own, which its name heads.
    """
    classes = () if rules.positive_class is not None else rules.classes
    rows = [_cells(prediction, classes) for prediction in predictions]
    return format_rows([[*_COLUMNS, *classes, _MARGIN], *rows])


def show_path(path: Path) -> str:
    """Return a path as text of one line; what cannot be printed of it is escaped."""
    return escape_line(str(path))


def describe(prediction: Prediction) -> dict[str, Any]:
    """Return a prediction as JSON has it; what is not known is None."""
    if prediction.error is not None:
        names = ("probability", "called", "uncertain", "unlike", "unlike_score", _MARGIN, "probabilities")
        return dict.fromkeys(names)
    return {
        "probability": prediction.positive_probability,
        "called": prediction.predicted_class,
        "uncertain": prediction.uncertain,
        "unlike": prediction.out_of_distribution,
        "unlike_score": prediction.ood_score,
        _MARGIN: float(f"{prediction.logit_margin:.9g}"),
        "probabilities": prediction.probability,
    }


def _record(prediction: Prediction) -> dict[str, Any]:
    path = show_path(prediction.path)
    return {**describe(prediction), "path": path, "notes": prediction.notes, "error": prediction.error}


def _cells(prediction: Prediction, classes: Sequence[str]) -> list[object]:
    record = {**_record(prediction), "notes": "; ".join(prediction.notes)}
    if escape_cell(record["path"]) != record["path"]:
        record["path"] = f"./{record['path']}"  # opens unchanged, and is no formula
    shares = [prediction.probability.get(name) for name in classes]
    cells = [*(record[name] for name in _COLUMNS), *shares, record[_MARGIN]]
    return [str(cell).lower() if isinstance(cell, bool) else cell for cell in cells]


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
    several = () if rules.positive_class is not None else rules.classes
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
