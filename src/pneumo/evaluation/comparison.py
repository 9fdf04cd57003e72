"""Which rows of a leaderboard differ on the test images, and which cannot be told apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pneumo.evaluation.answers import Answers, read_answers
from pneumo.evaluation.bootstrap import bootstrap, percentiles
from pneumo.evaluation.clusters import Clusters, class_sizes, effective_size, number_clusters
from pneumo.evaluation.counts import count_intervals
from pneumo.evaluation.intervals import RESIDUE, Interval, unvaried_difference, wilson
from pneumo.evaluation.runs import Row
from pneumo.evaluation.significance import (
    LEVEL,
    Difference,
    Placements,
    auroc_interval,
    average,
    delong,
    holm,
    letters,
    placements,
    swap_test,
)


class Pair(NamedTuple):
    """Two rows and what they differ in.

    Attributes:
        metric: accuracy or auroc.
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
        pairs: All pairs of those that are compared, by accuracy and then by AUROC.
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
    """A row's place on the board, its seeds' answers in the order of the images' paths, and their data's hashes."""

    place: int
    seeds: tuple[Answers, ...]
    data: tuple[str, ...]
    clusters: Clusters | None = None

    @property
    def images(self) -> tuple[str, tuple[str, ...], bytes]:
        """Tell test sets apart."""
        return self.data[0], self.seeds[0].paths, self.seeds[0].positive.tobytes()

    @property
    def mixed(self) -> bool:
        """Whether the seeds were tested on different images."""
        alone = (_Tested(0, (seed,), (data,)) for seed, data in zip(self.seeds, self.data, strict=True))
        return any(each.images != self.images for each in alone)

    @property
    def placements(self) -> Placements:
        """Give the mean over seeds."""
        return average([placements(seed.score, seed.positive, self.clusters) for seed in self.seeds])

    @property
    def right(self) -> npt.NDArray[np.int64]:
        """Give how many seeds are right on each image, (N,)."""
        found: npt.NDArray[np.int64] = np.stack([seed.right for seed in self.seeds]).sum(axis=0, dtype=np.int64)
        return found


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
        rows[each.place] = replace(
            board[each.place], intervals=_intervals(each, board[each.place].mean("test_accuracy") or 0.0)
        )
        if each.images != usual:
            reasons[each.place] = "was tested on other images than those compared"
        elif not rows[each.place].intervals:
            reasons[each.place] = "was tested on images of one class"
    same = [each for each in tested if not reasons[each.place]]
    pairs: list[Pair] = []
    for metric, test in (("accuracy", _accuracies), ("auroc", _aurocs)):
        ordered = sorted(same, key=lambda each: -round(board[each.place].mean(f"test_{metric}") or 0, 12))
        found = test(ordered)
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
    patients = images if not same or same[0].clusters is None else int(same[0].clusters.max()) + 1
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
    found = [(read_answers(run.folder, run.results).by_path(), run.results) for run in row.runs if run.results]
    return _Tested(place, tuple(seed for seed, _ in found), tuple(str(results["data_hash"]) for _, results in found))


def _share_patients(tested: Sequence[_Tested]) -> list[_Tested]:
    """Add the clusters of images; of the same test set one run with a splits.csv knows them for all."""
    known = {each.images: seed.patients for each in tested for seed in each.seeds if seed.patients}
    return [
        each._replace(clusters=number_clusters(known[each.images])) if each.images in known else each for each in tested
    ]


def _intervals(tested: _Tested, accuracy: float) -> dict[str, Interval]:
    positive = tested.seeds[0].positive
    if positive.all() or not positive.any():
        return {}
    share, images = tested.right / len(tested.seeds), len(positive)
    label, clusters = positive.astype(np.int64), np.arange(images) if tested.clusters is None else tested.clusters
    totals, right = np.bincount(label), np.bincount(label, share)
    table = np.array([[right[0], totals[0] - right[0]], [totals[1] - right[1], right[1]]])
    size = min(1.0, effective_size(share, clusters) / images)  # more seeds do not narrow it
    return {
        "accuracy": wilson(round(accuracy * images) * size, images * size),
        "auroc": auroc_interval(tested.placements),
        "balanced_accuracy": count_intervals(table, class_sizes(label, share, clusters, 2)[1])["balanced_accuracy"],
    }


def _accuracies(tested: Sequence[_Tested]) -> dict[tuple[int, int], Difference]:
    """Compare accuracies: exact swaps, and the paired bootstrap's interval."""
    if len(tested) < 2:
        return {}
    right, clusters, positive = [each.right for each in tested], tested[0].clusters, tested[0].seeds[0].positive
    share = np.stack([each.right / len(each.seeds) for each in tested], axis=1)
    draws = bootstrap(lambda weights: weights @ share / weights.sum(axis=1)[:, None], positive, clusters=clusters)
    found = {}
    for i, j in combinations(range(len(tested)), 2):
        seeds = (len(tested[i].seeds), len(tested[j].seeds))
        gain = right[i] * seeds[1] - right[j] * seeds[0]
        value = float(gain.sum() / (len(gain) * seeds[0] * seeds[1]))
        low, high = percentiles(draws[:, i] - draws[:, j])
        if high - low < RESIDUE:
            low, high = unvaried_difference(value, len(gain) if clusters is None else len(np.unique(clusters)))
        found[i, j] = Difference(value, low, high, swap_test(right[i], right[j], seeds, clusters))
    return found


def _aurocs(tested: Sequence[_Tested]) -> dict[tuple[int, int], Difference]:
    """Compare AUROCs by DeLong's test, of clustered images by Obuchowski's."""
    placed = [each.placements for each in tested]
    return {(i, j): delong(placed[i], placed[j]) for i, j in combinations(range(len(tested)), 2)}
