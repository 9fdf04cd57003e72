"""Figure of a stress test: performance against the severity of each corruption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from pneumo.data.corruptions import CORRUPTIONS
from pneumo.metrics.intervals import Estimate
from pneumo.reporting.figures.style import COLOURS, DARK, STYLE, WIDE, add_title

_ACROSS = 4
_ROW = 1.55  # inches


def draw_stress(clean: Estimate, corrupted: Mapping[str, Sequence[Estimate]], metric: str, title: str) -> Figure:
    """Plot a metric with its intervals against severity, one panel per corruption; a dashed line marks clean images.

    Args:
        clean: Estimate on clean images.
        corrupted: Estimates at severities 1 to 5 by key of `pneumo.data.corruptions.CORRUPTIONS`.
        metric: Name of the metric in the subtitle.
        title: Title of the figure.
    """
    down = ceil(len(corrupted) / _ACROSS)
    everything = [clean, *(each for estimates in corrupted.values() for each in estimates)]
    bottom = max(0.0, np.floor(10 * min(each.low for each in everything)) / 10)
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDE, _ROW * down + 1.05))
        height = figure.get_figheight()
        figure.subplots_adjust(
            left=0.06, right=0.99, bottom=0.52 / height, top=1 - 0.78 / height, wspace=0.12, hspace=0.42
        )
        panels = figure.subplots(down, _ACROSS, sharex=True, sharey=True, squeeze=False).ravel()
        for axes, (name, estimates) in zip(panels, corrupted.items(), strict=False):
            value, low, high = np.array([clean, *estimates]).T
            severity = np.arange(len(value))
            axes.axhline(clean.value, color=DARK, lw=1, ls="--")
            axes.fill_between(severity, low, high, color=COLOURS[0], alpha=0.2, lw=0)
            axes.plot(severity, value, "o-", color=COLOURS[0], lw=1.5, ms=3.5)
            axes.set_title(CORRUPTIONS[name].title, fontsize=9)
            axes.set(xticks=severity, xlim=(-0.2, len(value) - 0.8), ylim=(bottom, 1.0))
        for spare in panels[len(corrupted) :]:
            spare.remove()
        figure.supxlabel("severity (0: clean images)", fontsize=9, y=0.08 / height)
        add_title(figure, title)
        add_title(figure, f"{metric} with 95 % intervals; dashed: clean images", line=1)
    return figure
