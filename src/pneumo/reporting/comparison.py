"""Paired comparison of leaderboard rows on the same test images, as CSV and as a terminal table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import compress
from typing import Literal, NamedTuple

import numpy as np

from pneumo.common.plain_data import format_rows
from pneumo.common.terminal import PlainTable
from pneumo.metrics.bootstrap import RESAMPLES, count_draws
from pneumo.metrics.definitions import METRICS
from pneumo.metrics.estimation import Seeds
from pneumo.metrics.intervals import Interval
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.significance import SIGNIFICANCE_LEVEL, TOP, Difference, holm, letters
from pneumo.metrics.summary import TITLES
from pneumo.reporting.rows import Row
from pneumo.runs.prediction_files import read_predictions

HEADERS = ("metric", "first", "second", "difference", "95\u00a0% interval", "p", "p (Holm)")
_MAX_ROWS = 3  # with more rows, a terminal shows only pairs across sweeps


class Pair(NamedTuple):
    """Comparison of two rows by one metric."""

    metric: str  # name of a metric with a significance test
    first: Row  # the row with the higher value
    second: Row
    difference: Difference  # difference between the means over seeds, first minus second
    holm: float  # p-value after Holm's correction for all pairs of the leaderboard

    @property
    def different(self) -> bool:
        """Return whether the difference is significant after Holm's correction."""
        return self.holm < SIGNIFICANCE_LEVEL


class Comparison(NamedTuple):
    """All pairwise comparisons of the rows of a leaderboard."""

    rows: tuple[Row, ...]  # all rows of the leaderboard, with intervals and group letters
    pairs: tuple[Pair, ...]  # all pairs of compared rows, for each metric with a significance test
    compared: int  # number of compared rows
    images: int  # number of test images of the compared rows
    left_out: tuple[tuple[Row, str], ...]  # rows that are not compared, with the reason
    patients: int = 0  # number of patients of these images; without a splits.csv each image is its own patient


class _TestedRow(NamedTuple):
    """Index of a row, the predictions of its seeds sorted by image path, and the hashes of their datasets."""

    row: int
    seeds: tuple[Predictions, ...]
    data_hashes: tuple[str, ...]

    @property
    def images(self) -> tuple[str, tuple[str, ...], bytes]:
        """Identity of the test set."""
        return self.data_hashes[0], self.seeds[0].paths, self.seeds[0].label.tobytes()

    @property
    def mixed(self) -> bool:
        """Return whether the seeds were tested on different images."""
        seeds = zip(self.data_hashes, self.seeds, strict=True)
        return any((data, seed.paths, seed.label.tobytes()) != self.images for data, seed in seeds)


def compare(rows: Sequence[Row]) -> Comparison:
    """Compute the intervals of all rows, test the differences between comparable rows, and assign group letters.

    The means over seeds are compared, as shown in the leaderboard. The tests generalise to other test images, not to
    other seeds: they treat the trained networks as fixed.

    Raises:
        ConfigError: Predictions are missing or damaged.
    """
    reasons = {index: _exclusion_reason(row) for index, row in enumerate(rows)}
    tested = _add_patients([_read(index, row) for index, row in enumerate(rows) if not reasons[index]])
    test_sets = Counter(each.images for each in tested)
    most_common = max(test_sets, key=lambda images: test_sets[images], default=None)
    annotated = list(rows)
    for each in tested:
        if each.mixed:
            reasons[each.row] = "has seeds that were tested on different images"
            continue
        annotated[each.row] = replace(rows[each.row], intervals=_intervals(each.seeds, rows[each.row]))
        if each.images != most_common:
            reasons[each.row] = "was tested on other images than the compared rows"
        elif not annotated[each.row].intervals:
            reasons[each.row] = "was tested on images of one class"
    comparable = [each for each in tested if not reasons[each.row]]
    pairs: list[Pair] = []
    for metric, test in ((name, metric.compare) for name, metric in METRICS.items() if metric.compare):
        ordered = sorted(comparable, key=lambda each: -round(rows[each.row].mean(f"test_{metric}") or 0, 12))
        differences = test([each.seeds for each in ordered])
        adjusted = holm([difference.p for difference in differences.values()])
        different = np.zeros((len(ordered), len(ordered)), bool)
        for ((i, j), difference), p in zip(differences.items(), adjusted, strict=True):
            first, second = (rows[ordered[k].row] for k in (i, j))
            pairs.append(Pair(metric, first, second, difference, p))
            different[i, j] = different[j, i] = pairs[-1].different
        for each, letter in zip(ordered, letters(different) if differences else [""] * len(ordered), strict=True):
            row = annotated[each.row]
            annotated[each.row] = replace(row, groups={**row.groups, metric: letter})
    left_out = tuple((row, reasons[index]) for index, row in enumerate(rows) if reasons[index])
    seed = comparable[0].seeds[0] if comparable else None
    images, patients = (len(seed.paths), len(np.unique(seed.clusters))) if seed else (0, 0)
    return Comparison(tuple(annotated), tuple(pairs), len(comparable), images, left_out, patients)


def _exclusion_reason(row: Row) -> str:
    """Return why a row is not compared, as a predicate; empty if it is compared."""
    states = [run.state for run in row.runs]
    if row.first.trial:
        return "is a trial of a search"
    if any(results["task"] != "pneumonia" for results in row.finished):
        return "predicts more than two classes"
    for state, text in (("collapsed", "collapsed"), ("partial", "was tested on a part of the images")):
        if state in states:
            return text if len(states) == 1 else f"has a seed that {text}"
    return "" if "done" in states else "has not finished"


def _read(index: int, row: Row) -> _TestedRow:
    runs = [(read_predictions(run.folder, run.results).by_path(), run.results) for run in row.runs if run.results]
    return _TestedRow(index, tuple(seed for seed, _ in runs), tuple(str(results["data_hash"]) for _, results in runs))


def _add_patients(tested: Sequence[_TestedRow]) -> list[_TestedRow]:
    """Add the patients of the images; one run with a splits.csv is enough for all runs on the same test set."""
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
    header = "metric", *names, "difference", "ci_low", "ci_high", "p", "p_holm", "different"
    lines = (
        (p.metric, *_names(p.first), *_names(p.second), *p.difference, p.holm, str(p.different).lower()) for p in pairs
    )
    return format_rows((header, *lines))


def cells(pair: Pair, rows: Sequence[Row]) -> tuple[str, ...]:
    """Format a pair as table cells in the order of HEADERS."""
    value, low, high, p = pair.difference
    interval = f"{low:+.4f} to {high:+.4f}"
    names = name_row(pair.first, rows), name_row(pair.second, rows)
    return TITLES[pair.metric], *names, f"{value:+.4f}", interval, _format_p(p), _format_p(pair.holm)


def name_row(row: Row, rows: Sequence[Row]) -> str:
    """Return a one-line name of a row, built from the names that differ between the rows."""
    differing = [len(set(column)) > 1 for column in zip(*map(_names, rows), strict=True)]
    return " ".join(filter(None, compress(_names(row), differing))) or f"{row.first.model} {row.first.optimizer}"


def _names(row: Row) -> tuple[str, str, str, str]:
    return row.first.sweep, row.first.model, row.first.optimizer, row.setting


def comparison_table(comparison: Comparison, width: int) -> PlainTable | None:
    """Build a table of all pairs of up to three rows; with more rows, only pairs of one network in two sweeps.

    The uncorrected p-value is omitted on terminals narrower than 120 characters. Returns None if there is no such pair.
    """
    shown = [pair for pair in comparison.pairs if comparison.compared <= _MAX_ROWS or _matched(pair, comparison.rows)]
    if not shown:
        return None
    title = f"Differences between rows (better row first) on the same {comparison.images:,} test images"
    table = PlainTable(title, padding=(0, 1, 0, 0))
    columns = [index for index, header in enumerate(HEADERS) if width >= 120 or header != "p"]
    for index in columns:
        justify: Literal["left", "right"] = "left" if index < 3 else "right"
        table.add_column(HEADERS[index], justify=justify, no_wrap=index not in (1, 2), overflow="fold")
    for pair in shown:
        texts = cells(pair, comparison.rows)
        table.add_row(*(texts[index] for index in columns), style="bold" if pair.different else None)
    return table


def comparison_notes(comparison: Comparison) -> list[str]:
    """Return the notes that explain the groups and list the rows that are not compared."""
    notes = []
    if comparison.pairs:
        count = comparison.compared * (comparison.compared - 1) // 2
        pairs = "the one pair" if count == 1 else f"all {count:,} pairs"
        clustered = comparison.patients < comparison.images
        images = f"{comparison.images:,} images" + (f" of {comparison.patients:,} patients" if clustered else "")
        tests = (
            "exact paired test that swaps all images of a patient together; AUROC: Obuchowski's test."
            if clustered
            else "exact paired test (McNemar's for one seed each); AUROC: DeLong's test."
        )
        notes.append(
            f"group: Rows with the same letter do not differ significantly at 5 % on these {images}, after Holm's "
            f"correction for {pairs}. This does not prove that they are equal. Accuracy: {tests} The tests compare the "
            "means over the seeds of these trained networks. Intervals of differences are not corrected. Details: "
            "docs/RESULTS.md."
        )
        if any(TOP in row.groups.values() for row in comparison.rows):
            notes.append(
                f"{TOP}: The row does not differ significantly from the best of the compared rows. There are too many "
                "pairs for letters; comparisons.csv lists every pair."
            )
        if (draws := count_draws(comparison.images)) < RESAMPLES:
            notes.append(f"Intervals of differences in accuracy use only {draws:,} resamples: the test set is large.")
    if len(comparison.rows) == 1 and len(comparison.rows[0].runs) > 1:
        notes.append("These runs are seeds or folds of one configuration. They form one row, so nothing is compared.")
    reasons: dict[str, list[str]] = {}
    for row, reason in comparison.left_out:
        reasons.setdefault(reason, []).append(name_row(row, comparison.rows))
    for reason, names in reasons.items():
        shown = f"{names[0]}, because it" if len(names) == 1 else f"{len(names)} rows, because each"
        notes.append(f"Not compared: {shown} {reason}.")
    return notes


def _matched(pair: Pair, rows: Sequence[Row]) -> bool:
    """Return whether a pair has the same network in two sweeps, and the same optimizer.

    Different optimizers also match if each is used with this network in one of the two sweeps only.
    """
    one, two = pair.first.first, pair.second.first
    if one.sweep == two.sweep or one.model != two.model:
        return False
    used = {(row.first.sweep, row.first.optimizer) for row in rows if row.first.model == one.model}
    shared = (one.sweep, two.optimizer) in used or (two.sweep, one.optimizer) in used
    return one.optimizer == two.optimizer or not shared


def _format_p(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"
