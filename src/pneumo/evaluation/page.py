"""The leaderboard as one HTML page, which needs no network and opens from the disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pneumo.evaluation.comparison import Comparison
from pneumo.evaluation.pairwise import HEADS, cells
from pneumo.evaluation.run_figures import CAPTIONS
from pneumo.evaluation.runs import Run
from pneumo.evaluation.tables import columns
from pneumo.render import render

_CAPTIONS = {
    "accuracy": "Test accuracy with its 95 % interval, beside the study's where it has one.",
    "roc": "ROC curves; each of several seeds has its own line.",
    "shift": CAPTIONS["shift"],
    "time": "What accuracy costs: test accuracy against the time of training, caches not included.",
}


def to_html(
    comparison: Comparison, runs: Sequence[Run], notes: Sequence[str], title: str, figures: Mapping[str, bytes]
) -> str:
    """Render the page, with figures as SVG by their names."""
    board = comparison.rows
    shown = columns(board)
    states = [run.state for run in runs]
    return render(
        "leaderboard.html",
        title=title,
        counts={state: states.count(state) for state in dict.fromkeys(states)},
        columns=shown,
        rows=[(row, [(column.show(row), column.value and column.value(row)) for column in shown]) for row in board],
        pairs=[(pair, cells(pair, board)) for pair in comparison.pairs],
        heads=HEADS,
        images=comparison.images,
        notes=notes,
        figures=[(name, _CAPTIONS[name], svg) for name, svg in figures.items()],
    )
