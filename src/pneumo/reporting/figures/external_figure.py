"""Figure of internal and external AUROCs, one line per row of a leaderboard."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pneumo.common.text import escape_line
from pneumo.metrics.intervals import Interval
from pneumo.reporting.comparison import name_row
from pneumo.reporting.figures.style import COLOURS, DARK, STYLE, WIDE, add_title
from pneumo.reporting.rows import Row

_MAX_ROWS = 24
_MAX_SETS = len(COLOURS)
_MARKERS = "sD^vP*"
_MARK = 0.13  # inches between the marks of a row
_GAP = 0.2  # inches between rows
_CHARACTER = 0.075  # inches, at most
_MAX_LABEL = 36  # characters


def draw_external(rows: Sequence[Row]) -> Figure:
    """Plot the AUROC of each row on the internal test set and on the external sets, with 95 % intervals.

    Rows without an external set are left out, and so are sets after the sixth.
    """
    tested = [row for row in rows if row.external]
    shown, sets = tested[:_MAX_ROWS], sorted({name for row in tested for name in row.external})[:_MAX_SETS]
    labels = [_shorten(name_row(row, rows)) for row in shown]
    spacing = _GAP + _MARK * len(sets)
    legend = 0.05 + 0.19 * (1 + len(sets))  # inches
    with rc_context(STYLE):
        height = 0.9 + spacing * len(shown) + legend
        figure = Figure(figsize=(WIDE, height))
        left = (0.4 + _CHARACTER * max(map(len, labels))) / WIDE
        figure.subplots_adjust(left=left, right=0.98, bottom=(0.5 + legend) / height, top=1 - 0.4 / height)
        axes = figure.add_subplot()
        for index, row in enumerate(shown):
            _plot(axes, index, row.mean("test_auroc"), row.intervals.get("auroc"), "o", DARK)
            for position, name in enumerate(sets, 1):
                if (found := row.external.get(name)) is not None:
                    y = index + _MARK / spacing * position
                    _plot(axes, y, found.mean, found.interval, _MARKERS[position - 1], COLOURS[position - 1])
        middle = _MARK / spacing * len(sets) / 2
        axes.set_yticks([index + middle for index in range(len(shown))], labels)
        axes.set(xlabel="AUROC", ylim=(len(shown) - _GAP / 2 / spacing, -_GAP / 2 / spacing - 0.1))
        axes.set_xlim(right=1.005)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        _add_legend(figure, axes, sets)
        best = f", the {len(shown)} best of {len(tested)}" if len(shown) < len(tested) else ""
        add_title(figure, f"AUROC on internal and external images, with 95 % intervals{best}")
    return figure


def _plot(axes: Axes, y: float, value: float | None, interval: Interval | None, marker: str, colour: str) -> None:
    if value is None:
        return
    if interval is not None:
        axes.plot(interval, (y, y), color=colour, lw=1.8, solid_capstyle="round")
    axes.plot(value, y, marker, color=colour, ms=6, mec="white", mew=0.6, clip_on=False, zorder=3)


def _add_legend(figure: Figure, axes: Axes, sets: Sequence[str]) -> None:
    names = ["internal test", *(_shorten(name) for name in sets)]
    styles = zip(("o", *_MARKERS), (DARK, *COLOURS), strict=False)
    handles = [axes.plot([], [], marker, ls="-", lw=1.8, color=colour)[0] for marker, colour in styles]
    figure.legend(handles[: len(names)], names, loc="lower left", fontsize=9, bbox_to_anchor=(0.005, 0))


def _shorten(name: str) -> str:
    line = escape_line(name)  # tick labels are not escaped later
    return line if len(line) <= _MAX_LABEL else f"{line[: _MAX_LABEL - 1]}…"
