"""Figures of a leaderboard: test accuracies, ROC curves, and accuracy against training time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from pneumo.common.text import escape_line
from pneumo.metrics.curves import roc
from pneumo.metrics.intervals import Interval
from pneumo.reporting.figures.style import COLOURS, DARK, GREY, STYLE
from pneumo.reporting.rows import MAJORITY_RATE, STUDY, Row
from pneumo.runs.prediction_files import read_predictions

_MARKERS = "osD^vP*X"
_DASHES = ("-", "--", ":", "-.")
_ALPHAS = (1, 0.6, 0.35, 0.2)  # of the bars of the first, second, ... sweep
_MAX_ROWS = 24  # of a bar chart or of ROC curves


def draw(rows: Sequence[Row]) -> dict[str, Figure]:
    """Draw the figures of rows that are sorted best first; return them by name, or none if no run has finished."""
    finished = [row for row in rows if row.finished]
    if not finished:
        return {}
    binary = [row for row in finished if row.finished[0]["task"] == "pneumonia"]  # others have several curves each
    with rc_context(STYLE):
        figures = {"accuracy": _draw_accuracies(finished[:_MAX_ROWS], len(finished)), "time": _draw_times(finished)}
        return figures | ({"roc": _draw_curves(binary[:_MAX_ROWS], len(binary))} if binary else {})


def _draw_accuracies(rows: Sequence[Row], count: int) -> Figure:
    """Plot bars of test accuracy with one panel per network, next to the study's accuracies."""
    networks, order = _networks(rows), _optimizers(rows)
    figure, panels = _panels(len(networks), 3.4)
    comparable = any(row.comparable for row in rows)
    sweeps = list(dict.fromkeys(row.first.sweep for row in rows))
    for axes, network in zip(panels, networks, strict=True):
        of_network = [row for row in rows if row.first.model == network]
        names = {(row.first.optimizer, row.setting) for row in of_network}
        groups = sorted(names, key=lambda group: (order.index(group[0]), group[1]))
        published = any(row.study for row in of_network)
        width = 0.84 / (published + len(sweeps))
        for x, group in enumerate(groups):
            members = [row for row in of_network if (row.first.optimizer, row.setting) == group]
            left = x - width * (published + len(members) - 1) / 2
            if members[0].study:
                _bar(axes, left, width, members[0].study.test_accuracy, GREY)
            for position, row in enumerate(sorted(members, key=lambda row: sweeps.index(row.first.sweep)), published):
                sweep_index = sweeps.index(row.first.sweep)
                mean, interval = _accuracy(row)
                centre, colour = left + width * position, _colour(row.first.optimizer, rows)
                _bar(axes, centre, width, mean, colour, alpha=_ALPHAS[min(sweep_index, 3)], top=interval[1])
                axes.errorbar(centre, mean, _errors(mean, interval), color="#222222", lw=1, capsize=2)
        crowded = len(groups) > 3
        labels = [(" " if crowded else "\n").join(map(escape_line, filter(None, group))) for group in groups]
        axes.set_xticks(range(len(groups)), labels, rotation=90 if crowded else 0)
        axes.set(ylim=(0, 1.12), title=network, yticks=np.linspace(0, 1, 6))
        if comparable:
            axes.axhline(MAJORITY_RATE, color="#888888", lw=1, ls=":", zorder=0)
        axes.grid(axis="x", visible=False)
    panels[0].set_ylabel("test accuracy")
    handles = []
    if any(row.study for row in rows):
        label = f"published study{'' if comparable else ' (on other images)'}"
        handles.append(Line2D([], [], color=GREY, lw=8, label=label))
    if len(sweeps) > 1:
        handles += [
            Line2D([], [], color="#333333", lw=8, alpha=_ALPHAS[min(i, 3)], label=s) for i, s in enumerate(sweeps)
        ]
    if comparable:
        handles.append(Line2D([], [], color="#888888", ls=":", label=f"majority-class rate ({MAJORITY_RATE})"))
    _add_title(figure, f"Test accuracy with 95 % interval{_best(rows, count)}, {_test_sets(rows)}", handles)
    return figure


def _accuracy(row: Row) -> tuple[float, Interval]:
    """Return the mean test accuracy of a row with a finished run, and its interval."""
    mean, interval = row.mean("test_accuracy"), row.interval()
    assert mean is not None
    assert interval is not None
    return mean, interval


def _errors(mean: float, interval: Interval) -> list[list[float]]:
    return [[mean - interval[0]], [interval[1] - mean]]


def _bar(axes: Axes, x: float, width: float, height: float, colour: str, alpha: float = 1, top: float = 0) -> None:
    axes.bar(x, height, width * 0.92, color=colour, alpha=alpha)
    text = f"{height:.3f}"[1:] if height < 1 else "1"
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.85}
    axes.text(x, max(top, height) + 0.015, text, ha="center", fontsize=8, bbox=box)


def _draw_curves(rows: Sequence[Row], count: int) -> Figure:
    """Plot the ROC curves of all runs with one panel per network."""
    networks = _networks(rows)
    figure, panels = _panels(len(networks), 3.0)
    sweeps = {row.first.sweep for row in rows}
    variants = list(dict.fromkeys((row.first.sweep, row.setting) for row in rows))
    for axes, network in zip(panels, networks, strict=True):
        axes.plot([0, 1], [0, 1], color="#BBBBBB", lw=1, ls=":")
        for row in (row for row in rows if row.first.model == network):
            dashes = _DASHES[variants.index((row.first.sweep, row.setting)) % len(_DASHES)]
            names = [row.first.optimizer, row.setting, row.first.sweep if len(sweeps) > 1 else ""]
            label = " ".join([*filter(None, names), f"{row.mean('test_auroc'):.3f}"])
            style: dict[str, Any] = {
                "color": _colour(row.first.optimizer, rows),
                "ls": dashes,
                "alpha": 1 if len(row.runs) == 1 else 0.6,
            }
            for run in row.runs:
                if run.results:
                    axes.plot(*roc(read_predictions(run.folder, run.results)), **style, lw=1.6, label=label)
                    label = "_"  # one legend entry for all seeds
        axes.set(title=network, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.set_box_aspect(1)
        axes.set_xlabel("1 - specificity")
        axes.legend(loc="lower right", fontsize=8, title="AUROC", title_fontsize=8)
    panels[0].set_ylabel("sensitivity")
    _add_title(figure, f"ROC curves{_best(rows, count)}, {_test_sets(rows)}", [])
    return figure


def _draw_times(rows: Sequence[Row]) -> Figure:
    """Plot test accuracy against training time."""
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.add_subplot()
    networks = _networks(rows)
    for row in rows:
        marker = _MARKERS[networks.index(row.first.model) % len(_MARKERS)]
        mean, interval = _accuracy(row)
        seconds, colour = row.mean("train_seconds"), _colour(row.first.optimizer, rows)
        assert seconds is not None
        errors = _errors(mean, interval)
        axes.errorbar(seconds, mean, errors, color=colour, marker=marker, ms=8, lw=0, elinewidth=1, mec="white")
        if row.comparable and row.study:
            axes.plot(row.study.train_seconds, row.study.test_accuracy, marker, ms=7, mfc="none", mec=colour)
    axes.set(xscale="log", xlabel="training time [s]", ylabel="test accuracy")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    keys: list[tuple[str, str, str, str | None]] = [
        (name, "o", _colour(name, rows), None) for name in _optimizers(rows)
    ]
    keys += [(name, _MARKERS[i % len(_MARKERS)], DARK, None) for i, name in enumerate(networks)]
    if any(row.comparable for row in rows):
        keys.append(("published study (laptop GPU)", "o", DARK, "none"))
    handles = [Line2D([], [], ls="", label=k, marker=marker, color=c, mfc=face) for k, marker, c, face in keys]
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5))
    _add_title(figure, f"Test accuracy against training time, {_test_sets(rows)}", [])
    return figure


def _panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """Create a figure of `count` panels with a shared vertical axis, four per line."""
    across, down = min(4, count), ceil(count / 4)
    figure = Figure(figsize=(max(3.2 * across, 5.5), height * down + 0.8), layout="constrained")
    axes = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    for spare in axes[count:]:
        spare.remove()
    return figure, list(axes[:count])


def _add_title(figure: Figure, title: str, handles: list[Line2D]) -> None:
    """Add a title and, if there are handles, a legend below the panels."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    if handles:
        width = 0.6 + 0.08 * max(len(str(handle.get_label())) for handle in handles)  # approximately, in inches
        columns = int(figure.get_figwidth() / width)
        figure.legend(handles=handles, loc="outside lower center", ncols=max(1, min(columns, len(handles))))


def _networks(rows: Sequence[Row]) -> list[str]:
    return _ordered((row.first.model for row in rows), (model for model, _ in STUDY))


def _optimizers(rows: Sequence[Row]) -> list[str]:
    return _ordered((row.first.optimizer for row in rows), (optimizer for _, optimizer in STUDY))


def _ordered(names: Iterable[str], study: Iterable[str]) -> list[str]:
    """Return the unique names, those of the study first and in its order."""
    order = list(study)
    return sorted(set(names), key=lambda name: (order.index(name) if name in order else len(order), name))


def _colour(optimizer: str, rows: Sequence[Row]) -> str:
    return COLOURS[_optimizers(rows).index(optimizer) % len(COLOURS)]


def _best(rows: Sequence[Row], count: int) -> str:
    return f", the {len(rows)} best of {count}" if len(rows) < count else ""


def _test_sets(rows: Sequence[Row]) -> str:
    """Describe the test sets of the rows, such as `624 test images (chest_xray)`."""
    sets = sorted({(row.test_size, str(row.finished[0]["data"])) for row in rows})
    return ", ".join(f"{count:,} test images ({name})" for count, name in sets)
