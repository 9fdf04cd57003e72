"""The leaderboard as text: CSV, Markdown and a terminal table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from textwrap import wrap
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
from pneumo.metrics.intervals import Interval
from pneumo.reporting.external_sets import ExternalSet
from pneumo.reporting.rows import STUDY, Row
from pneumo.runs.collection import Run
from pneumo.runs.result_rules import RESULT_NAMES

_MAX_WORD = 16  # characters of a line of a column title on terminals
# Ranks with external sets: their AUROCs are dropped after all intervals, and their intervals with the internal one.
_EXTERNAL_RANK, _AUROC_INTERVAL_RANK = 3.5, 4.5


@dataclass(frozen=True)
class Column:
    """One column of the leaderboard."""

    title: str
    show: Callable[[Row], str]  # formats the cell of a row
    value: Callable[[Row], float | None] | None = None  # returns the sort key; None for a column of text
    rank: float = 0  # columns of the highest rank are dropped first if the terminal is too narrow; 0 is never dropped
    about: str = ""  # tooltip of the column's title in HTML


def columns(rows: Sequence[Row]) -> list[Column]:
    """Return the columns of a table of these rows."""
    several_sweeps = len({row.first.sweep for row in rows}) > 1
    folds = any(run.fold >= 0 for row in rows for run in row.runs)
    study = any(row.study for row in rows)
    compared = any(row.comparable for row in rows)
    grouped = any(row.groups.get("accuracy") for row in rows)
    intervals = any(row.intervals for row in rows)
    external = sorted({name for row in rows for name in row.external})
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
        *(column for metric in METRICS.values() for column in _metric(metric, intervals, grouped, external)),
        _mean("train accuracy", "train_accuracy", "running mean over the training epoch of the tested checkpoint", 9),
        _study("study (train)", "train_accuracy", 12) if study else None,
        _difference("difference (train)", "train_accuracy", 13) if compared else None,
        Column("best epoch", _epoch, lambda row: row.mean("best_epoch"), 11, "epoch of the tested checkpoint"),
        Column("training time", _time, lambda row: row.mean("train_seconds"), 6, "without the time to fill caches"),
        Column("parameters", _parameters, lambda row: row.mean("parameters_trainable"), 14, "trainable of total"),
        Column("remark", lambda row: row.remark) if any(row.remark for row in rows) else None,
    ]
    return [column for column in candidates if column]


def to_csv(runs: Sequence[Run], external: Sequence[ExternalSet] = ()) -> str:
    """Format one line for each run, with all values of its results.json and its AUROC on each external set."""
    columns = "sweep", "run", "state", "reason", "study_train_accuracy", "study_test_accuracy", *RESULT_NAMES
    ends = ("auroc", "auroc_ci_low", "auroc_ci_high")
    # The name comes last, after a separator: no set can have the columns of another.
    lines: list[Sequence[object]] = [(*columns, *(f"external_{end}:{each.name}" for each in external for end in ends))]
    for run in runs:
        study = (STUDY.get((run.model, run.optimizer)) or (None, None))[:2]
        values = {"model": run.model, "optimizer": run.optimizer, "seed": run.seed, **(run.results or {})}
        aurocs = (value for each in external for value in each.aurocs.get(run.folder, (None,) * len(ends)))
        lines.append((run.sweep, run.name, run.state, run.reason, *study, *map(values.get, RESULT_NAMES), *aurocs))
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
        head = "\n".join(line for word in column.title.split(" ") for line in wrap(word, _MAX_WORD))
        justify: Literal["left", "right"] = "right" if column.value else "left"
        table.add_column(Text(head), justify=justify, vertical="bottom", no_wrap=head != "setting")
    for row in rows:
        style = None if not row.remark else "yellow" if row.finished else "red"
        table.add_row(*(column.show(row) for column in shown), style=style)
    return table


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(map(escape_markdown, cells))} |"


def _mean(title: str, name: str, about: str, rank: float = 0) -> Column:
    return Column(
        title, lambda row: _format_mean(row.mean(name), row.deviation(name)), lambda row: row.mean(name), rank, about
    )


def _metric(metric: Metric, intervals: bool, grouped: bool, external: Sequence[str]) -> list[Column]:
    """Return the columns of a metric that has a rank, except accuracy: mean, interval, group and external sets."""
    if metric.rank is None or metric.name == "accuracy":
        return []
    shown = [_mean(metric.title, f"test_{metric.name}", metric.about, metric.rank)]
    sets = external if metric.name == "auroc" else ()
    if intervals and metric.over_seeds:
        rank = _AUROC_INTERVAL_RANK if sets else 12 + metric.rank
        shown.append(_interval(f"{metric.title}, 95\u00a0% interval", metric.name, metric.method, rank))
    if grouped and metric.compare:
        shown.append(_group(f"group by {metric.title}", metric.name, metric.title, 3 * metric.rank + 1))
    return [*shown, *(column for index, name in enumerate(sets) for column in _external(metric, name, index / 100))]


def _external(metric: Metric, name: str, later: float) -> list[Column]:
    """Return the columns of the AUROC on an external set: mean and interval; `later` is added to their ranks."""

    def mean(row: Row) -> float | None:
        return row.external[name].mean if name in row.external else None

    def show(row: Row) -> str:
        return _format_mean(mean(row), row.external[name].deviation if name in row.external else None)

    def interval(row: Row) -> Interval | None:
        return row.external[name].interval if name in row.external else None

    title, about = f"{metric.title}, {name}", f"{metric.about}; on the external set {name}"
    interval_title = f"{title}, 95\u00a0% interval"
    return [
        Column(title, show, mean, _EXTERNAL_RANK + later, about),
        _interval_column(interval_title, interval, metric.method, _AUROC_INTERVAL_RANK + later),
    ]


def _number(title: str, value: Callable[[Row], float | None], spec: str, rank: float, about: str) -> Column:
    return Column(title, lambda row: _format(value(row), spec), value, rank, about)


def _study(title: str, name: str, rank: float) -> Column:
    return _number(title, lambda row: getattr(row.study, name, None), ".4f", rank, "as published")


def _difference(title: str, name: str, rank: float) -> Column:
    return _number(title, lambda row: row.difference(name), "+.4f", rank, "this run minus the study")


def _interval(title: str, metric: str, about: str, rank: float) -> Column:
    return _interval_column(title, lambda row: row.interval(metric), about, rank)


def _interval_column(title: str, interval: Callable[[Row], Interval | None], about: str, rank: float) -> Column:
    def show(row: Row) -> str:
        ends = interval(row)
        return f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else ""

    return Column(title, show, lambda row: (interval(row) or (None,))[0], rank, about)


def _group(title: str, metric: str, name: str, rank: float) -> Column:
    about = f"Rows with the same letter do not differ significantly in {name}."
    return Column(title, lambda row: row.groups.get(metric, ""), None, rank, about)


def _format_mean(mean: float | None, deviation: float | None) -> str:
    return _format(mean, ".4f") + ("" if deviation is None else f" ± {deviation:.4f}")


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
