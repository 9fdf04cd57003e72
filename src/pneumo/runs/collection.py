"""Runs found in directories, grouped into rows that differ only in seed or fold."""

from __future__ import annotations

import logging
import os
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import numpy as np

from pneumo.errors import ConfigError
from pneumo.metrics.intervals import Interval, wilson, zero_residue
from pneumo.runs.published import STUDY, TESTED, Published
from pneumo.runs.results import Results, count_tested, read_results
from pneumo.runs.status import Status, load_status

_log = logging.getLogger(__name__)
_OF_A_RUN = ("results.json", "status.json")


@dataclass(frozen=True)
class Run:
    """One run, finished or not.

    Attributes:
        sweep, name: Names of the sweep's folder and of the run's.
        results: What results.json holds; None if the run has not finished.
        state: done, partial, collapsed, failed, stopped or unfinished.
        reason: Why it failed.
        settings_hash: Of what decides its numbers beside seed and fold.
    """

    sweep: str
    name: str
    folder: Path
    model: str
    optimizer: str
    seed: int
    results: Results | None
    state: str
    reason: str
    settings_hash: str

    @property
    def setting(self) -> str:
        """What tells the run from others of its network, optimizer, seed and fold: the rest of its name."""
        usual = f"{self.model}-{self.optimizer}-s{self.seed}"
        name, _, time = self.name.partition("/")  # train.py's runs lie in a folder of their time
        named = name == usual or name.startswith(f"{usual}-")
        parts = name.split("-")
        rest = name[len(usual) + 1 :].split("-") if named else [part for part in parts if part != f"s{self.seed}"]
        setting = "-".join(part for part in rest if not re.fullmatch(r"fold\d+", part))
        return " ".join(filter(None, (setting, time)))

    @property
    def fold(self) -> int:
        """The part of the training patients that was held out; -1 if they are not divided into folds."""
        return int(self.results["fold"]) if self.results else -1

    @property
    def trial(self) -> bool:
        """Whether a search made it."""
        return self.name.startswith("trial-")


@dataclass(frozen=True)
class Row:
    """Runs that differ in their seed or fold only, one line of the leaderboard.

    Attributes:
        runs: In the order of their seeds.
        hidden: Tells it from another row of the same words, whose runs have other settings.
        intervals: 95 % intervals of the mean over seeds, by the metric: accuracy, auroc, balanced_accuracy.
        groups: Letters, by accuracy and auroc: rows that share one cannot be told apart.
    """

    runs: tuple[Run, ...]
    hidden: str = ""
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)

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


def is_run(folder: Path) -> bool:
    """Return whether a folder is a run's own."""
    return any(os.path.exists(folder / name) for name in _OF_A_RUN)


def read_finished(folder: Path) -> Results:
    """Read the results.json of a run; raise a ConfigError if the run has not finished or the file is damaged."""
    if results := read_results(folder):
        return results
    raise ConfigError(
        f"{folder} holds no results.json, and a report is of one run that has finished: name its folder, such as "
        "outputs/sweep/study/resnext-sgd-s0."
    )


def collect(folders: Sequence[Path]) -> list[Run]:
    """Read the runs in the folders of sweeps, each once; a run's own folder counts as a sweep of one.

    Raises:
        ConfigError: There is no run in one of them, or a file of results is damaged.
    """
    runs: dict[Path, Run] = {}
    damaged: list[str] = []
    homes = {sweep: sweep.parent if is_run(sweep) else sweep for sweep in (folder.resolve() for folder in folders)}
    names = [home.name for home in set(homes.values())]
    for sweep, home in homes.items():
        places = {path.parent for name in _OF_A_RUN for path in sweep.rglob(name)}
        if not places:
            state = "has no run in it that can be read" if os.path.isdir(sweep) else "is no folder"
            raise ConfigError(
                f"{sweep} {state}: name the folder of a sweep or of a run, such as outputs/sweep/study, which "
                "holds folders with results.json or status.json in them."
            )
        label = home.name if names.count(home.name) == 1 else str(home)
        for place in sorted(places - runs.keys()):
            status = None
            try:
                status = load_status(place)
            except ConfigError as error:
                damaged.append(str(error))
            if run := _read(sweep, label, place, status):
                runs[place] = run
    if damaged and not runs:
        raise ConfigError(damaged[0])
    if damaged:
        _log.warning("%d status.json could not be read, and count as missing. The first: %s", len(damaged), damaged[0])
    return list(runs.values())


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


def differences(rows: Iterable[Row]) -> list[str]:
    """Say where rows of one sweep and network differ in what their names do not tell."""
    found: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for name in ("epochs", "batch_size", "image_size", "experiment", "data"):
        for row in rows:
            if not row.first.setting:
                found[row.first.sweep, row.first.model, name] |= {str(results[name]) for results in row.finished}
    return [
        f"{sweep}, {model}: the rows differ in {name} ({' and '.join(sorted(values))})."
        for (sweep, model, name), values in found.items()
        if len(values) > 1
    ]


def _read(sweep: Path, label: str, folder: Path, status: Status | None) -> Run | None:
    results = read_results(folder)
    name = folder.name if folder == sweep else folder.relative_to(sweep).as_posix()
    if results:
        state = "partial" if results["status"] == "partial" else "collapsed" if results["collapsed"] else "done"
        model, optimizer, seed, settings = (results[key] for key in ("model", "optimizer", "seed", "settings_hash"))
        # A job's status has the hash of its configuration as composed, results of earlier versions a later one.
        composed = (status and status.status == "done" and status.settings_hash) or str(settings)
        return Run(label, name, folder, str(model), str(optimizer), int(seed), results, state, "", composed)
    if status is None:
        return None
    state = status.status if status.status in ("failed", "stopped") else "unfinished"
    model, optimizer, seed = status.model, status.optimizer, status.seed
    return Run(label, name, folder, model, optimizer, seed, None, state, status.reason, status.settings_hash)
