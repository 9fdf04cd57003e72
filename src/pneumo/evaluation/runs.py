"""What lies in the folders of sweeps: runs, and rows of runs that differ in their seed or fold only."""

from __future__ import annotations

import logging
import os
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import numpy as np

from pneumo.errors import ConfigError
from pneumo.evaluation.intervals import Interval, wilson, zero_residue
from pneumo.evaluation.results import Results, count_tested, read_results
from pneumo.evaluation.status import Status, load_status
from pneumo.evaluation.study import STUDY, TESTED, Published

_log = logging.getLogger(__name__)

_OF_A_RUN = ("results.json", "status.json")


@dataclass(frozen=True)
class Run:
    """One run, finished or not.

    Attributes:
        sweep: Name of the sweep's folder.
        name: Of the run's folder.
        folder: Where it lies.
        model: conf/model's name.
        optimizer: conf/optimizer's.
        seed: The run's.
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
        if name == usual or name.startswith(f"{usual}-"):
            rest = name[len(usual) + 1 :].split("-")
        else:
            rest = [part for part in name.split("-") if part != f"s{self.seed}"]
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
        """Compute the mean over the finished runs that have the key; None if there is none."""
        return statistics.fmean(values) if (values := self._values(name)) else None

    def deviation(self, name: str) -> float | None:
        """Compute the standard deviation over the finished runs that have the key; None if there are not two."""
        return statistics.stdev(values) if len(values := self._values(name)) > 1 else None

    def difference(self, name: str) -> float | None:
        """Give by how much an accuracy differs from the study's; None if that would be no comparison."""
        mean = self.mean(name)
        if mean is None or self.study is None or not self.comparable:
            return None
        return float(zero_residue(np.array(mean - float(getattr(self.study, name)))))

    @property
    def interval(self) -> Interval | None:
        """The mean test accuracy's 95 % interval, for the number of images tested: more seeds do not narrow it."""
        mean = self.mean("test_accuracy")
        if mean is None or "accuracy" in self.intervals:
            return self.intervals.get("accuracy")
        return wilson(round(mean * self.tested), self.tested)

    @property
    def tested(self) -> int:
        """How many images each run was tested on."""
        return count_tested(self.finished[0])

    @property
    def remark(self) -> str:
        """What one must know before reading the numbers, such as `collapsed` or `1 of 3 failed`."""
        states = [run.state for run in self.runs]
        marks = dict.fromkeys(state for state in states if state != "done")
        if len(set(states)) == 1:
            return "".join(marks)
        return ", ".join(f"{states.count(state)} of {len(states)} {state}" for state in marks)

    def _values(self, name: str) -> list[float]:
        return [float(results[name]) for results in self.finished if name in results]


def collect(folders: Sequence[Path]) -> list[Run]:
    """Read the runs in the folders of sweeps, each once; a run's own folder counts as a sweep of one.

    Raises:
        ConfigError: There is no run in one of them, or a file of results is damaged.
    """
    runs: dict[Path, Run] = {}
    damaged: list[str] = []
    sweeps = list(dict.fromkeys(folder.resolve() for folder in folders))
    homes = {
        sweep: sweep.parent if any(os.path.exists(sweep / name) for name in _OF_A_RUN) else sweep for sweep in sweeps
    }
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
            try:
                status = load_status(place)
            except ConfigError as error:
                status = None
                damaged.append(str(error))
            if run := _read(sweep, label, place, status):
                runs[place] = run
    if damaged and not runs:
        raise ConfigError(damaged[0])
    if damaged:
        _log.warning("%d status.json could not be read, and count as missing. The first: %s", len(damaged), damaged[0])
    return list(runs.values())


def rows(runs: Iterable[Run]) -> list[Row]:
    """Put runs that differ in their seed or fold only together.

    The rows with the highest test accuracy come first. Trials of a search are there to be chosen from, and the test set
    must have no part in that: they come after the others, sorted by validation loss.
    """
    groups: dict[tuple[str, ...], dict[str, list[Run]]] = {}
    for run in sorted(runs, key=lambda run: (run.seed, run.fold)):
        alike = groups.setdefault((run.sweep, run.model, run.optimizer, run.setting), {})
        alike.setdefault(run.settings_hash, []).append(run)
    found = [
        Row(tuple(group), f"#{settings[:4]}" if len(alike) > 1 else "")
        for alike in groups.values()
        for settings, group in alike.items()
    ]

    def order(row: Row) -> tuple[bool, float, str, str]:
        value = row.mean("val_loss") if row.first.trial else -(row.mean("test_accuracy") or 0)
        return row.first.trial, inf if value is None else value, row.first.sweep, row.first.name

    return sorted(found, key=order)


def differences(rows: Iterable[Row]) -> list[str]:
    """Say where rows of one sweep and network differ in what their names do not tell."""
    found: dict[tuple[str, str, str], set[str]] = {}
    for name in ("epochs", "batch_size", "image_size", "experiment", "data"):
        for row in rows:
            if row.finished and not row.first.setting:
                values = {str(results[name]) for results in row.finished}
                found.setdefault((row.first.sweep, row.first.model, name), set()).update(values)
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
        named = (str(results["model"]), str(results["optimizer"]), int(results["seed"]))
        # A job's status has the hash of its configuration as composed, results of earlier versions a later one.
        composed = status and status.status == "done" and status.settings_hash
        return Run(label, name, folder, *named, results, state, "", composed or str(results["settings_hash"]))
    if status is None:
        return None
    state = status.status if status.status in ("failed", "stopped") else "unfinished"
    named = (status.model, status.optimizer, status.seed)
    return Run(label, name, folder, *named, None, state, status.reason, status.settings_hash)
