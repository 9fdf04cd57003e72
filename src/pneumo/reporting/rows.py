"""Rows of the leaderboard, runs that differ in their seed or fold only; and the results of the study.

Source of the study: B. Montalico, J. C. Herrera, Classification and Detection of Pneumonia in X-Ray Images Using Deep
Learning Techniques.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

import numpy as np

from pneumo.metrics.intervals import Interval, wilson, zero_residue
from pneumo.runs.collection import Run
from pneumo.runs.results import Results, count_tested

TESTED = 624  # images
MAJORITY = 0.625  # share of the larger class of these images, which a collapsed run reaches


class Published(NamedTuple):
    """One cell of the study's table: accuracies, and the time of training on a laptop's GPU."""

    train_accuracy: float
    test_accuracy: float
    train_seconds: int


# By conf/model's and conf/optimizer's names. The three pairs of 0.7429 and 0.6250 collapsed to one answer.
STUDY = {
    ("xraychestnet", "sgd"): Published(0.7429, 0.6250, 62 * 60 + 37),
    ("xraychestnet", "adam"): Published(0.7429, 0.6250, 74 * 60 + 57),
    ("xraychestnet", "adagrad"): Published(0.8562, 0.7404, 71 * 60 + 49),
    ("vgg16", "sgd"): Published(0.9724, 0.8926, 119 * 60 + 50),
    ("vgg16", "adam"): Published(0.7429, 0.6250, 130 * 60 + 37),
    ("vgg16", "adagrad"): Published(0.9688, 0.8590, 119 * 60 + 3),
    ("resnext", "sgd"): Published(0.9722, 0.9503, 86 * 60 + 55),
    ("resnext", "adam"): Published(0.9074, 0.8125, 109 * 60 + 53),
    ("resnext", "adagrad"): Published(0.9711, 0.9551, 92 * 60 + 47),
    ("googlenet", "sgd"): Published(0.9563, 0.8926, 65 * 60 + 15),
    ("googlenet", "adam"): Published(0.9369, 0.8365, 72 * 60 + 44),
    ("googlenet", "adagrad"): Published(0.9536, 0.9375, 76 * 60 + 49),
}


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
