"""The leaderboard as text: CSV, Markdown and a terminal table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from pneumo.common.plain_data import format_rows
from pneumo.common.terminal import PlainTable
from pneumo.common.text import escape_markdown
from pneumo.metrics.definitions import METRICS
from pneumo.metrics.estimation import Metric
from pneumo.reporting.rows import STUDY, Row
from pneumo.runs.collection import Run
from pneumo.runs.result_rules import RESULT_NAMES


@dataclass(frozen=True)
class Column:
    """One column of the leaderboard."""

    title: str
    show: Callable[[Row], str]  # formats the cell of a row
    value: Callable[[Row], float | None] | None = None  # returns the sort key; None for a column of text
    rank: int = 0  # columns of the highest rank are dropped first if the terminal is too narrow; 0 is never dropped
    about: str = ""  # tooltip of the column's title in HTML


def columns(rows: Sequence[Row]) -> list[Column]:
    """Return the columns of a table of these rows."""
    several_sweeps = len({row.first.sweep for row in rows}) > 1
    folds = any(run.fold >= 0 for row in rows for run in row.runs)
    study = any(row.study for row in rows)
    compared = any(row.comparable for row in rows)
    grouped = any(row.groups.get("accuracy") for row in rows)
    intervals = any(row.intervals for row in rows)
    candidates: list[Column | None] = [
        Column("sweep", lambda row: row.first.sweep) if several_sweeps else None,
        Column("network", lambda row: row.first.model),
        Column("optimizer", lambda row: row.first.optimizer),
        Column("setting", lambda row: row.setting) if any(row.setting for row in rows) else None,
        Column("folds" if folds else "seeds", _seeds, lambda row: len(row.finished))
        if any(len(row.runs) > 1 for row in rows)
        else None,
        _mean("validation loss", "val_loss", "of the tested checkpoint") if any(r.first.trial for r in rows) else None,
        _mean("test accuracy", "test_accuracy", METRICS["accuracy"].about),
        _interval("95\u00a0% interval", "accuracy", METRICS["accuracy"].method, 4),
        _group("group", "accuracy", "accuracy", 1) if grouped else None,
        _study("study", "test_accuracy", 2) if study else None,
        _difference("difference", "test_accuracy", 5) if compared else None,
        *(column for metric in METRICS.values() for column in _metric(metric, intervals, grouped)),
        _mean("train accuracy", "train_accuracy", "running mean over the training epoch of the tested checkpoint", 9),
        _study("study (train)", "train_accuracy", 12) if study else None,
        _difference("difference (train)", "train_accuracy", 13) if compared else None,
        Column("best epoch", _epoch, lambda row: row.mean("best_epoch"), 11, "epoch of the tested checkpoint"),
        Column("training time", _time, lambda row: row.mean("train_seconds"), 6, "without the time to fill caches"),
        Column("parameters", _parameters, lambda row: row.mean("parameters_trainable"), 14, "trainable of total"),
        Column("remark", lambda row: row.remark) if any(row.remark for row in rows) else None,
    ]
    return [column for column in candidates if column]


def to_csv(runs: Sequence[Run]) -> str:
    """Format one line for each run, with all values of its results.json."""
    columns = "sweep", "run", "state", "reason", "study_train_accuracy", "study_test_accuracy", *RESULT_NAMES
    lines: list[Sequence[object]] = [columns]
    for run in runs:
        study = (STUDY.get((run.model, run.optimizer)) or (None, None))[:2]
        values = {"model": run.model, "optimizer": run.optimizer, "seed": run.seed, **(run.results or {})}
        lines.append((run.sweep, run.name, run.state, run.reason, *study, *map(values.get, RESULT_NAMES)))
    return format_rows(lines)


def to_markdown(rows: Sequence[Row], notes: Sequence[str], title: str) -> str:
    """Format the table and its notes as Markdown."""
    shown = columns(rows)
    lines = [f"# {escape_markdown(title)}", "", _line(column.title for column in shown)]
    lines.append(f"| {' | '.join('---:' if column.value else '---' for column in shown)} |")
    lines += [_line(column.show(row) for column in shown) for row in rows]
    return "\n".join([*lines, "", *(f"- {escape_markdown(note)}" for note in notes)]) + "\n"


def to_terminal(rows: Sequence[Row], title: str, console: Console) -> Table:
    """Build a table of as many columns as fit the terminal, dropping those of the highest rank first."""
    shown = columns(rows)
    options = console.options.update(max_width=1_000)
    while True:
        table = _build_table(rows, shown, title)
        fits = Measurement.get(console, options, table).maximum <= console.width
        if fits or not any(column.rank for column in shown):
            return table
        last = max(column.rank for column in shown)
        shown = [column for column in shown if column.rank < last]  # drops sensitivity and specificity together


def _build_table(rows: Sequence[Row], shown: Sequence[Column], title: str) -> Table:
    table = PlainTable(title, padding=(0, 1, 0, 0))
    for column in shown:
        head = column.title.replace(" ", "\n")
        justify: Literal["left", "right"] = "right" if column.value else "left"
        table.add_column(Text(head), justify=justify, vertical="bottom", no_wrap=head != "setting")
    for row in rows:
        style = None if not row.remark else "yellow" if row.finished else "red"
        table.add_row(*(column.show(row) for column in shown), style=style)
    return table


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(map(escape_markdown, cells))} |"


def _mean(title: str, name: str, about: str, rank: int = 0) -> Column:
    def show(row: Row) -> str:
        deviation = row.deviation(name)
        return _format(row.mean(name), ".4f") + ("" if deviation is None else f" ± {deviation:.4f}")

    return Column(title, show, lambda row: row.mean(name), rank, about)


def _metric(metric: Metric, intervals: bool, grouped: bool) -> list[Column]:
    """Return the columns of a metric that has a rank, except accuracy: mean, interval and group."""
    if metric.rank is None or metric.name == "accuracy":
        return []
    shown = [_mean(metric.title, f"test_{metric.name}", metric.about, metric.rank)]
    if intervals and metric.over_seeds:
        shown.append(_interval(f"{metric.title}, 95\u00a0% interval", metric.name, metric.method, 12 + metric.rank))
    if grouped and metric.compare:
        shown.append(_group(f"group by {metric.title}", metric.name, metric.title, 3 * metric.rank + 1))
    return shown


def _number(title: str, value: Callable[[Row], float | None], spec: str, rank: int, about: str) -> Column:
    return Column(title, lambda row: _format(value(row), spec), value, rank, about)


def _study(title: str, name: str, rank: int) -> Column:
    return _number(title, lambda row: getattr(row.study, name, None), ".4f", rank, "as published")


def _difference(title: str, name: str, rank: int) -> Column:
    return _number(title, lambda row: row.difference(name), "+.4f", rank, "this run minus the study")


def _interval(title: str, metric: str, about: str, rank: int) -> Column:
    def show(row: Row) -> str:
        interval = row.interval(metric)
        return f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""

    return Column(title, show, lambda row: (row.interval(metric) or (None,))[0], rank, about)


def _group(title: str, metric: str, name: str, rank: int) -> Column:
    about = f"Rows with the same letter do not differ significantly in {name}."
    return Column(title, lambda row: row.groups.get(metric, ""), None, rank, about)


def _format(value: float | None, spec: str) -> str:
    return "" if value is None else format(value, spec)


def _seeds(row: Row) -> str:
    done, total = len(row.finished), len(row.runs)
    return str(total) if done == total else f"{done} of {total}"


def _epoch(row: Row) -> str:
    best, epochs = row.mean("best_epoch"), row.mean("epochs")
    return "" if best is None or epochs is None else f"{best:.3g} of {epochs:.3g}"


def _time(row: Row) -> str:
    seconds = row.mean("train_seconds")
    if seconds is None:
        return ""
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _parameters(row: Row) -> str:
    trained, total = row.mean("parameters_trainable"), row.mean("parameters_total")
    return "" if trained is None or total is None else f"{trained:,.0f} of {total:,.0f}"
