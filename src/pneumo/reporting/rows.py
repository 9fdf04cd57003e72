"""Rows of the leaderboard: runs that differ in their seed or fold only."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf

import numpy as np

from pneumo.metrics.intervals import Interval, wilson, zero_residue
from pneumo.reporting.study import STUDY, TESTED, Published
from pneumo.runs.collection import Run
from pneumo.runs.results import Results, count_tested


@dataclass(frozen=True)
class Row:
    """Runs that differ in their seed or fold only, one line of the leaderboard."""

    runs: tuple[Run, ...]  # in the order of their seeds
    hidden: str = ""  # tells it from another row of the same words, whose runs have other settings
    intervals: Mapping[str, Interval] = field(default_factory=dict)  # 95 %, of the mean over seeds, by metric
    groups: Mapping[str, str] = field(default_factory=dict)  # letters by metric: rows that share one are not separable

    @property
    def first(self) -> Run:
        """The run whose names all share."""
        return self.runs[0]

    @property
    def setting(self) -> str:
        """What tells the row from others of its network and optimizer."""
        return " ".join(filter(None, (self.first.setting, self.hidden)))

    @property
    def finished(self) -> list[Results]:
        """What the finished runs have given; partial tests count only where there is no whole one."""
        found = [run.results for run in self.runs if run.results]
        return [results for results in found if results["status"] == "done"] or found

    @property
    def study(self) -> Published | None:
        """The study's cell for this network and optimizer."""
        return STUDY.get((self.first.model, self.first.optimizer))

    @property
    def comparable(self) -> bool:
        """Whether the study's numbers are of the same images."""
        radiographs = all(results["data"] == "chest_xray" for results in self.finished)
        return self.study is not None and bool(self.finished) and radiographs and self.tested == TESTED

    def mean(self, name: str) -> float | None:
        """Return the mean over the finished runs that have the key; None if there is none."""
        return statistics.fmean(values) if (values := self._values(name)) else None

    def deviation(self, name: str) -> float | None:
        """Return the standard deviation over the finished runs that have the key; None if there are not two."""
        return statistics.stdev(values) if len(values := self._values(name)) > 1 else None

    def difference(self, name: str) -> float | None:
        """Return by how much an accuracy differs from the study's; None if that would be no comparison."""
        mean = self.mean(name)
        if mean is None or not self.comparable:
            return None
        return float(zero_residue(np.array(mean - float(getattr(self.study, name)))))

    def interval(self, metric: str = "accuracy") -> Interval | None:
        """Return a metric's 95 % interval, which more seeds do not narrow."""
        mean = self.mean("test_accuracy")
        if metric != "accuracy" or mean is None or metric in self.intervals:
            return self.intervals.get(metric)
        return wilson(round(mean * self.tested), self.tested)

    @property
    def tested(self) -> int:
        """How many images each run was tested on."""
        return count_tested(self.finished[0])

    @property
    def remark(self) -> str:
        """What one must know before reading the numbers, such as `collapsed` or `1 of 3 failed`."""
        states = [run.state for run in self.runs]
        counts = {state: f"{states.count(state)} of {len(states)} {state}" for state in states if state != "done"}
        return ", ".join(counts if len(set(states)) == 1 else counts.values())

    def _values(self, name: str) -> list[float]:
        return [float(results[name]) for results in self.finished if name in results]


def rows(runs: Iterable[Run]) -> list[Row]:
    """Group runs that differ in their seed or fold only, the highest test accuracy first.

    Trials of a search come last, by validation loss: the test set must have no part in choosing one.
    """
    groups: dict[tuple[str, ...], dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in sorted(runs, key=lambda run: (run.seed, run.fold)):
        groups[run.sweep, run.model, run.optimizer, run.setting][run.settings_hash].append(run)

    def order(row: Row) -> tuple[bool, float, str, str]:
        value = row.mean("val_loss") if row.first.trial else -(row.mean("test_accuracy") or 0)
        return row.first.trial, inf if value is None else value, row.first.sweep, row.first.name

    found = [
        Row(tuple(group), f"#{settings[:4]}" if len(alike) > 1 else "")
        for alike in groups.values()
        for settings, group in alike.items()
    ]
    return sorted(found, key=order)
