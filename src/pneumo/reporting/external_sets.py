"""External sets of a leaderboard: the recorded tests of its runs on labelled images of other sources."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pneumo.common.text import count_noun
from pneumo.data.image_notes import abbreviate
from pneumo.metrics.estimation import mean_auroc_interval
from pneumo.metrics.intervals import Estimate, Interval
from pneumo.reporting.comparison import name_row
from pneumo.reporting.rows import ExternalAuroc, Row
from pneumo.runs.collection import Run
from pneumo.runs.external_tests import ExternalTest, read_external_tests

_OTHER_IMAGES = "other images or labels than those of the other runs"
_NO_AUROC = "no AUROC, since a class is absent"


class ExternalSet(NamedTuple):
    """A set of images from another source on which runs of a leaderboard were tested."""

    name: str
    images: int
    patients: int
    aurocs: Mapping[Path, Estimate]  # by run folder


class ExternalSets(NamedTuple):
    """The rows of a leaderboard with their AUROCs on all external sets."""

    rows: tuple[Row, ...]
    sets: tuple[ExternalSet, ...]  # sorted by name
    notes: tuple[str, ...]


class _RunTest(NamedTuple):
    """Test of one run of a row."""

    row: int  # index of the row
    run: Run
    test: ExternalTest

    @property
    def images(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Paths and labels of the images, sorted by path; the test must be sorted."""
        predictions = self.test.predictions
        return predictions.paths, tuple(predictions.classes[label] for label in predictions.label)


def add_external_sets(rows: Sequence[Row]) -> ExternalSets:
    """Read the external tests of the finished runs, and add their AUROCs to the rows.

    A damaged or outdated test is ignored with a note. All runs of a set must have been tested on the same images; of
    several choices, the most common one, then the first is used.
    """
    tests: dict[str, list[_RunTest]] = defaultdict(list)
    problems: dict[str, list[str]] = defaultdict(list)
    for index, row in enumerate(rows):
        for run in _tested_runs(row):
            found, ignored = read_external_tests(run.folder)
            for test in found:
                ordered = replace(test, predictions=test.predictions.by_path())
                tests[test.name].append(_RunTest(index, run, ordered))
            for path, reason in ignored:
                problems[f"{reason}; repeat pneumo evaluate --record"].append(
                    f"{run.name}/{path.relative_to(run.folder)}"
                )
    sets, notes, extended = [], [], list(rows)
    for name in sorted(tests):
        used, excluded = _select(tests[name])
        for each, reason in excluded:
            problems[reason].append(f"{name} of {each.run.name}")
        if used:
            sets.append(_external_set(name, used))
            for index, auroc in _row_aurocs(used).items():
                extended[index] = replace(extended[index], external={**extended[index].external, name: auroc})
    if sets:
        notes = [_describe(sets), *_missing_runs(extended, sets)]
    notes += [f"Ignored external tests: {abbreviate(names)} ({reason})." for reason, names in problems.items()]
    return ExternalSets(tuple(extended), tuple(sets), tuple(notes))


def _tested_runs(row: Row) -> list[Run]:
    """Return the runs whose results the row shows."""
    return [run for run in row.runs if run.results is not None and run.results in row.finished]


def _select(tests: Sequence[_RunTest]) -> tuple[list[_RunTest], list[tuple[_RunTest, str]]]:
    """Split the tests on a set into those that are used and those that are not, with the reason."""
    counts = Counter(each.images for each in tests)
    common = max(counts, key=lambda images: counts[images])
    used: list[_RunTest] = []
    excluded: list[tuple[_RunTest, str]] = []
    for each in tests:
        if each.images != common:
            excluded.append((each, _OTHER_IMAGES))
        elif "auroc" not in each.test.metrics:
            excluded.append((each, _NO_AUROC))
        else:
            used.append(each)
    return used, excluded


def _external_set(name: str, used: Sequence[_RunTest]) -> ExternalSet:
    first = used[0].test
    aurocs = {each.run.folder: each.test.metrics["auroc"] for each in used}
    return ExternalSet(name, first.images, first.patients, aurocs)


def _row_aurocs(used: Sequence[_RunTest]) -> dict[int, ExternalAuroc]:
    """Return mean, standard deviation and interval of the AUROC of each row."""
    by_row: dict[int, list[ExternalTest]] = defaultdict(list)
    for each in used:
        by_row[each.row].append(each.test)
    return {row: _combine(tests) for row, tests in by_row.items()}


def _combine(tests: Sequence[ExternalTest]) -> ExternalAuroc:
    values = [test.metrics["auroc"].value for test in tests]
    mean = statistics.fmean(values)
    interval: Interval | None = tests[0].metrics["auroc"][1:]
    if len(tests) > 1:
        seeds = [test.predictions for test in tests]
        # As for the internal test, there is no interval of a mean over seeds with more than two classes.
        interval = mean_auroc_interval(seeds, mean) if seeds[0].is_binary else None
    return ExternalAuroc(mean, statistics.stdev(values) if len(values) > 1 else None, interval, len(values))


def _describe(sets: Sequence[ExternalSet]) -> str:
    listed = "; ".join(
        f"{each.name} ({count_noun(each.images, 'image')} of {count_noun(each.patients, 'patient')})" for each in sets
    )
    return (
        f"External sets: {listed}. Their columns are empty for runs without a record of pneumo evaluate --record. "
        "Groups and differences are those of the internal test."
    )


def _missing_runs(rows: Sequence[Row], sets: Sequence[ExternalSet]) -> Iterator[str]:
    """Describe the rows that have a record for some of their runs only."""
    for each in sets:
        for row in rows:
            found, total = row.external.get(each.name), len(_tested_runs(row))
            if found is not None and found.runs < total:
                yield f"AUROC, {each.name}: {name_row(row, rows)} has records of {found.runs} of {total} runs only."
