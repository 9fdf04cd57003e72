"""Paired comparison of the rows of a leaderboard on the same test images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from pneumo.metrics.curves import has_both_classes
from pneumo.metrics.definitions import METRICS
from pneumo.metrics.estimation import Seeds
from pneumo.metrics.intervals import Interval
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.significance import LEVEL, Difference, holm, letters
from pneumo.runs.collection import Row
from pneumo.runs.prediction_files import read_predictions


class Pair(NamedTuple):
    """Two rows and what they differ in.

    Attributes:
        metric: Name of a metric that has a test.
        first: The row that stands higher.
        second: The other one.
        difference: Of the means over seeds, first less second.
        holm: The p-value, corrected for all pairs of the board.
    """

    metric: str
    first: Row
    second: Row
    difference: Difference
    holm: float

    @property
    def different(self) -> bool:
        """Whether the two can be told apart."""
        return self.holm < LEVEL


class Comparison(NamedTuple):
    """What can be said of the rows of a leaderboard.

    Attributes:
        rows: Its rows with their intervals and letters.
        pairs: All pairs of those that are compared, by each metric that has a test.
        compared: How many are.
        images: On how many images.
        left_out: The other rows, each with the reason.
        patients: Of how many patients these images are, as far as the runs' splits.csv name them.
    """

    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]
    compared: int
    images: int
    left_out: tuple[tuple[Row, str], ...]
    patients: int = 0


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
        alone = (_Tested(0, (seed,), (data,)) for seed, data in zip(self.seeds, self.data, strict=True))
        return any(each.images != self.images for each in alone)


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
    images = len(same[0].seeds[0].paths) if same else 0
    patients = len(np.unique(same[0].seeds[0].clusters)) if same else 0
    left_out = [(row, reasons[place]) for place, row in enumerate(board) if reasons[place]]
    return Comparison(tuple(rows), tuple(pairs), len(same), images, tuple(left_out), patients)


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
    if not has_both_classes(seeds[0]):
        return {}
    return {
        name: metric.over_seeds(seeds, row.mean(f"test_{name}") or 0.0)
        for name, metric in METRICS.items()
        if metric.over_seeds
    }
