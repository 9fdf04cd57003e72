"""Rows of the leaderboard, and the results of the published study.

A row holds the runs that differ only in their seed or fold.

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

from pneumo.metrics.intervals import Interval, wilson, zero_rounding_errors
from pneumo.runs.collection import Run
from pneumo.runs.results import Results, count_test_images

STUDY_TEST_IMAGES = 624
MAJORITY_RATE = 0.625  # accuracy on these images when the larger class is always predicted


class Published(NamedTuple):
    """One cell of the study's table: accuracies, and the training time on a laptop GPU."""

    train_accuracy: float
    test_accuracy: float
    train_seconds: int


# Keys are the names in conf/model and conf/optimizer. The three runs with 0.7429 and 0.6250 predicted a single class.
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


class ExternalAuroc(NamedTuple):
    """AUROC of a row's runs on an external set."""

    mean: float  # over the runs that were tested on the set
    deviation: float | None  # standard deviation over these runs; None for a single run
    interval: Interval | None  # 95 % interval of the mean; None for several runs with more than two classes
    runs: int  # number of these runs


@dataclass(frozen=True)
class Row:
    """A row of the leaderboard: runs that differ only in their seed or fold."""

    runs: tuple[Run, ...]  # sorted by seed and fold
    settings_tag: str = ""  # distinguishes rows that have the same names but different settings, such as #1a2b
    intervals: Mapping[str, Interval] = field(default_factory=dict)  # 95 % intervals of means over seeds, by metric
    # Group letters by metric: rows with the same letter do not differ significantly.
    groups: Mapping[str, str] = field(default_factory=dict)
    external: Mapping[str, ExternalAuroc] = field(default_factory=dict)  # by name of the external set

    @property
    def first(self) -> Run:
        """The first run; all runs of the row have its names."""
        return self.runs[0]

    @property
    def setting(self) -> str:
        """The settings that distinguish the row from others with the same network and optimizer."""
        return " ".join(filter(None, (self.first.setting, self.settings_tag)))

    @property
    def finished(self) -> list[Results]:
        """Results of the finished runs; partial tests are included only if no run has a complete one."""
        tested = [run.results for run in self.runs if run.results]
        return [results for results in tested if results["status"] == "done"] or tested

    @property
    def study(self) -> Published | None:
        """The study's cell for this network and optimizer; None for other classes than the study's."""
        if any(results["task"] == "multiclass" for results in self.finished):
            return None
        return STUDY.get((self.first.model, self.first.optimizer))

    @property
    def comparable(self) -> bool:
        """Return whether the runs were tested on the study's test images."""
        same_data = all(results["data"] == "chest_xray" for results in self.finished)
        return self.study is not None and bool(self.finished) and same_data and self.test_size == STUDY_TEST_IMAGES

    def mean(self, name: str) -> float | None:
        """Return the mean over the finished runs that have the key; None if no run has it."""
        return statistics.fmean(values) if (values := self._values(name)) else None

    def deviation(self, name: str) -> float | None:
        """Return the standard deviation over the finished runs that have the key; None for fewer than two."""
        return statistics.stdev(values) if len(values := self._values(name)) > 1 else None

    def difference(self, name: str) -> float | None:
        """Return the mean accuracy minus the study's; None if the test images are different."""
        mean = self.mean(name)
        if mean is None or not self.comparable:
            return None
        return float(zero_rounding_errors(np.array(mean - float(getattr(self.study, name)))))

    def interval(self, metric: str = "accuracy") -> Interval | None:
        """Return the 95 % interval of a metric; more seeds do not narrow it."""
        mean = self.mean("test_accuracy")
        if metric != "accuracy" or mean is None or metric in self.intervals:
            return self.intervals.get(metric)
        return wilson(round(mean * self.test_size), self.test_size)

    @property
    def test_size(self) -> int:
        """Number of test images of each run."""
        return count_test_images(self.finished[0])

    @property
    def remark(self) -> str:
        """States of the runs other than done, such as `collapsed` or `1 of 3 failed`."""
        states = [run.state for run in self.runs]
        counts = {state: f"{states.count(state)} of {len(states)} {state}" for state in states if state != "done"}
        return ", ".join(counts if len(set(states)) == 1 else counts.values())

    def _values(self, name: str) -> list[float]:
        return [float(results[name]) for results in self.finished if name in results]


def build_rows(runs: Iterable[Run]) -> list[Row]:
    """Group runs that differ only in their seed or fold, and sort the rows by test accuracy, best first.

    Trials of a hyperparameter search come last, sorted by validation loss: they must not be selected on the test set.
    """
    groups: dict[tuple[str, ...], dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in sorted(runs, key=lambda run: (run.seed, run.fold)):
        groups[run.sweep, run.model, run.optimizer, run.setting][run.settings_hash].append(run)

    def order(row: Row) -> tuple[bool, float, str, str]:
        value = row.mean("val_loss") if row.first.trial else -(row.mean("test_accuracy") or 0)
        return row.first.trial, inf if value is None else value, row.first.sweep, row.first.name

    rows = [
        Row(tuple(group), f"#{settings_hash[:4]}" if len(same_names) > 1 else "")
        for same_names in groups.values()
        for settings_hash, group in same_names.items()
    ]
    return sorted(rows, key=order)
