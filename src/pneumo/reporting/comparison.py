"""Paired comparison of the rows of a leaderboard on the same test images; as text: CSV and a terminal table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import compress
from typing import Literal, NamedTuple

import numpy as np

from pneumo.common.plain_data import format_rows
from pneumo.common.terminal import PlainTable
from pneumo.metrics.bootstrap import RESAMPLES, resamples
from pneumo.metrics.definitions import METRICS
from pneumo.metrics.estimation import Seeds
from pneumo.metrics.intervals import Interval
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.significance import LEVEL, TOP, Difference, holm, letters
from pneumo.metrics.summary import TITLES
from pneumo.reporting.rows import Row
from pneumo.runs.prediction_files import read_predictions

HEADS = ("of", "first", "second", "difference", "95\u00a0% interval", "p", "p (Holm)")
_FEW = 3  # rows, whose pairs a terminal has room for


class Pair(NamedTuple):
    """Two rows and what they differ in."""

    metric: str  # name of a metric that has a test
    first: Row  # the row that stands higher
    second: Row  # the other one
    difference: Difference  # of the means over seeds, first less second
    holm: float  # the p-value, corrected for all pairs of the board

    @property
    def different(self) -> bool:
        """Whether the two can be told apart."""
        return self.holm < LEVEL


class Comparison(NamedTuple):
    """What can be said of the rows of a leaderboard."""

    rows: tuple[Row, ...]  # its rows with their intervals and letters
    pairs: tuple[Pair, ...]  # all pairs of those that are compared, by each metric that has a test
    compared: int  # how many are
    images: int  # on how many images
    left_out: tuple[tuple[Row, str], ...]  # the other rows, each with the reason
    patients: int = 0  # of how many patients these images are, as far as the runs' splits.csv name them


class _Tested(NamedTuple):
    """A row's place on the board, its seeds' predictions in the order of the images' paths, and their data's hashes."""

    place: int
    seeds: tuple[Predictions, ...]
    data: tuple[str, ...]

    @property
    def images(self) -> tuple[str, tuple[str, ...], bytes]:
        """Identity of the test set."""
        return self.data[0], self.seeds[0].paths, self.seeds[0].label.tobytes()

    @property
    def mixed(self) -> bool:
        """Whether the seeds were tested on different images."""
        own = zip(self.data, self.seeds, strict=True)
        return any((data, seed.paths, seed.label.tobytes()) != self.images for data, seed in own)


def compare(board: Sequence[Row]) -> Comparison:
    """Give the rows their intervals, compare those that can be compared, and give them letters.

    The numbers compared are the means over seeds, as the board shows them. The tests are about the test images: they
    take the networks as they were trained, and another seed may give another one.

    Raises:
        ConfigError: Predictions are missing or damaged.
    """
    reasons = {place: _reason(row) for place, row in enumerate(board)}
    tested = _share_patients([_read(place, row) for place, row in enumerate(board) if not reasons[place]])
    sets = Counter(each.images for each in tested)
    usual = max(sets, key=lambda images: sets[images], default=None)
    rows = list(board)
    for each in tested:
        if each.mixed:
            reasons[each.place] = "has seeds that were tested on different images"
            continue
        rows[each.place] = replace(board[each.place], intervals=_intervals(each.seeds, board[each.place]))
        if each.images != usual:
            reasons[each.place] = "was tested on other images than those compared"
        elif not rows[each.place].intervals:
            reasons[each.place] = "was tested on images of one class"
    same = [each for each in tested if not reasons[each.place]]
    pairs: list[Pair] = []
    for metric, test in ((name, metric.compare) for name, metric in METRICS.items() if metric.compare):
        ordered = sorted(same, key=lambda each: -round(board[each.place].mean(f"test_{metric}") or 0, 12))
        found = test([each.seeds for each in ordered])
        adjusted = holm([difference.p for difference in found.values()])
        different = np.zeros((len(ordered), len(ordered)), bool)
        for ((i, j), difference), p in zip(found.items(), adjusted, strict=True):
            first, second = (board[ordered[k].place] for k in (i, j))
            pairs.append(Pair(metric, first, second, difference, p))
            different[i, j] = different[j, i] = pairs[-1].different
        for each, letter in zip(ordered, letters(different) if found else [""] * len(ordered), strict=True):
            row = rows[each.place]
            rows[each.place] = replace(row, groups={**row.groups, metric: letter})
    left_out = tuple((row, reasons[place]) for place, row in enumerate(board) if reasons[place])
    sizes = (len(same[0].seeds[0].paths), len(np.unique(same[0].seeds[0].clusters))) if same else (0, 0)
    return Comparison(tuple(rows), tuple(pairs), len(same), sizes[0], left_out, sizes[1])


def _reason(row: Row) -> str:
    """Say why a row is not compared; nothing if it is."""
    states = [run.state for run in row.runs]
    if row.first.trial:
        return "is a trial of a search"
    if any(results["task"] == "subtype" for results in row.finished):
        return "tells three classes apart"
    for state, text in (("collapsed", "collapsed"), ("partial", "was tested in part")):
        if state in states:
            return text if len(states) == 1 else f"has a seed that {text}"
    return "" if "done" in states else "has not finished"


def _read(place: int, row: Row) -> _Tested:
    found = [(read_predictions(run.folder, run.results).by_path(), run.results) for run in row.runs if run.results]
    return _Tested(place, tuple(seed for seed, _ in found), tuple(str(results["data_hash"]) for _, results in found))


def _share_patients(tested: Sequence[_Tested]) -> list[_Tested]:
    """Add the patients of images; of the same test set one run with a splits.csv has them for all."""
    known = {each.images: seed.patients for each in tested for seed in each.seeds if seed.patients}
    return [
        each._replace(seeds=tuple(replace(seed, patients=known.get(each.images, ())) for seed in each.seeds))
        for each in tested
    ]


def _intervals(seeds: Seeds, row: Row) -> dict[str, Interval]:
    if not seeds[0].has_both_classes:
        return {}
    measured = {name: metric.over_seeds for name, metric in METRICS.items() if metric.over_seeds}
    return {name: over_seeds(seeds, row.mean(f"test_{name}") or 0.0) for name, over_seeds in measured.items()}


def comparisons_csv(pairs: Sequence[Pair]) -> str:
    """Format one line for each pair and metric."""
    names = [f"{which}_{name}" for which in ("first", "second") for name in ("sweep", "model", "optimizer", "setting")]
    head = "metric", *names, "difference", "ci_low", "ci_high", "p", "p_holm", "different"
    lines = (
        (p.metric, *_words(p.first), *_words(p.second), *p.difference, p.holm, str(p.different).lower()) for p in pairs
    )
    return format_rows((head, *lines))


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
