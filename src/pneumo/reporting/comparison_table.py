"""The comparison of leaderboard rows as comparisons.csv and as a terminal table."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Literal

from pneumo.common.plain_data import format_rows
from pneumo.common.terminal import PlainTable
from pneumo.metrics.bootstrap import RESAMPLES, resamples
from pneumo.metrics.significance import TOP
from pneumo.reporting.comparison import Comparison, Pair
from pneumo.runs.collection import Row
from pneumo.runs.results import TITLES

HEADS = ("of", "first", "second", "difference", "95\u00a0% interval", "p", "p (Holm)")
_FEW = 3  # rows, whose pairs a terminal has room for


def comparisons_csv(pairs: Sequence[Pair]) -> str:
    """Give one line for each pair and metric."""
    names = [f"{which}_{name}" for which in ("first", "second") for name in ("sweep", "model", "optimizer", "setting")]
    lines: list[Sequence[object]] = [("metric", *names, "difference", "ci_low", "ci_high", "p", "p_holm", "different")]
    for pair in pairs:
        words = *_words(pair.first), *_words(pair.second)
        lines.append((pair.metric, *words, *pair.difference, pair.holm, str(pair.different).lower()))
    return format_rows(lines)


def cells(pair: Pair, board: Sequence[Row]) -> tuple[str, ...]:
    """Give what stands under HEADS for a pair of the board's rows."""
    value, low, high, p = pair.difference
    interval = f"{low:+.4f} to {high:+.4f}"
    rows = name_row(pair.first, board), name_row(pair.second, board)
    return TITLES[pair.metric], *rows, f"{value:+.4f}", interval, _chance(p), _chance(pair.holm)


def name_row(row: Row, board: Sequence[Row]) -> str:
    """Name a row in one line by the words in which the board's rows differ."""
    differing = [len(set(words)) > 1 for words in zip(*map(_words, board), strict=True)]
    return " ".join(filter(None, compress(_words(row), differing))) or f"{row.first.model} {row.first.optimizer}"


def _words(row: Row) -> tuple[str, str, str, str]:
    return row.first.sweep, row.first.model, row.first.optimizer, row.setting


def comparison_table(comparison: Comparison, width: int) -> PlainTable | None:
    """Return a table of the pairs that matter: of few rows all, of several sweeps those of the same network.

    Where a terminal is less than 120 characters wide, the uncorrected p is left out. None if there are no such pairs.
    """
    shown = [pair for pair in comparison.pairs if comparison.compared <= _FEW or _matched(pair, comparison.rows)]
    if not shown:
        return None
    title = f"Differences, the better one first, on the same {comparison.images:,} test images"
    table = PlainTable(title, padding=(0, 1, 0, 0))
    kept = [place for place, head in enumerate(HEADS) if width >= 120 or head != "p"]
    for place in kept:
        justify: Literal["left", "right"] = "left" if place < 3 else "right"
        table.add_column(HEADS[place], justify=justify, no_wrap=place not in (1, 2), overflow="fold")
    for pair in shown:
        texts = cells(pair, comparison.rows)
        table.add_row(*(texts[place] for place in kept), style="bold" if pair.different else None)
    return table


def explain_comparison(comparison: Comparison) -> list[str]:
    """Say what one must know to read the groups, and which rows are in none."""
    notes = []
    if comparison.pairs:
        count = comparison.compared * (comparison.compared - 1) // 2
        pairs = "the one pair" if count == 1 else f"all {count:,} pairs"
        clustered = comparison.patients < comparison.images
        images = f"{comparison.images:,} images" + (f" of {comparison.patients:,} patients" if clustered else "")
        tests = (
            "exact paired test that swaps all images of a patient together; AUROC: Obuchowski's test."
            if clustered
            else "exact paired test (McNemar's where there is one seed each); AUROC: DeLong's test."
        )
        notes.append(
            f"group: Rows with the same letter do not differ significantly at 5 % on these {images}, after Holm's "
            f"correction for {pairs}. This does not prove that they are equal. Accuracy: {tests} The tests compare the "
            "means over the seeds of these trained networks. Intervals of differences are not corrected. Details: "
            "docs/EVALUATION.md."
        )
        if any(TOP in row.groups.values() for row in comparison.rows):
            notes.append(
                f"{TOP}: The row does not differ significantly from the best of the compared rows. Letters for all "
                "pairs would be too many; comparisons.csv lists every pair."
            )
        if (draws := resamples(comparison.images)) < RESAMPLES:
            notes.append(f"Intervals of differences in accuracy use {draws:,} resamples, since the images are many.")
    if len(comparison.rows) == 1 and len(comparison.rows[0].runs) > 1:
        notes.append(
            "These runs are seeds or folds of one configuration, which is one row: there is nothing to compare it with."
        )
    reasons: dict[str, list[str]] = {}
    for row, reason in comparison.left_out:
        reasons.setdefault(reason, []).append(name_row(row, comparison.rows))
    for reason, names in reasons.items():
        shown = f"{names[0]}, which" if len(names) == 1 else f"{len(names)} rows, each of which"
        notes.append(f"Not compared: {shown} {reason}.")
    return notes


def _matched(pair: Pair, board: Sequence[Row]) -> bool:
    """Tell whether rows are one network in two sweeps, with one optimizer, or with one that the other lacks."""
    one, two = pair.first.first, pair.second.first
    if one.sweep == two.sweep or one.model != two.model:
        return False
    used = {(row.first.sweep, row.first.optimizer) for row in board if row.first.model == one.model}
    shared = (one.sweep, two.optimizer) in used or (two.sweep, one.optimizer) in used
    return one.optimizer == two.optimizer or not shared


def _chance(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"
