"""What lies in the folders of sweeps: runs, and rows of runs that differ in their seed only."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pneumo.errors import ConfigError
from pneumo.evaluation.results import Results, accuracy_interval, read_results
from pneumo.evaluation.status import read_status
from pneumo.evaluation.study import STUDY, TESTED, Published


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

    @property
    def setting(self) -> str:
        """What tells the run from others of its network, optimizer and seed: the rest of its name."""
        usual = f"{self.model}-{self.optimizer}-s{self.seed}"
        if self.name == usual or self.name.startswith(f"{usual}-"):
            return self.name[len(usual) + 1 :]
        return "-".join(part for part in self.name.split("-") if part != f"s{self.seed}")

    @property
    def trial(self) -> bool:
        """Whether a search made it."""
        return self.name.startswith("trial-")


@dataclass(frozen=True)
class Row:
    """Runs that differ in their seed only, one line of the leaderboard."""

    runs: tuple[Run, ...]

    @property
    def first(self) -> Run:
        """The run whose names all share."""
        return self.runs[0]

    @property
    def finished(self) -> list[Results]:
        """What the finished runs have given."""
        return [run.results for run in self.runs if run.results]

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
        """Give the mean over the finished runs; None if there is none."""
        return statistics.fmean(self._values(name)) if self.finished else None

    def deviation(self, name: str) -> float | None:
        """Give the standard deviation over the finished runs; None if there are not two."""
        return statistics.stdev(self._values(name)) if len(self.finished) > 1 else None

    def difference(self, name: str) -> float | None:
        """Give by how much an accuracy differs from the study's; None if that would be no comparison."""
        mean = self.mean(name)
        if mean is None or self.study is None or not self.comparable:
            return None
        return mean - float(getattr(self.study, name))

    @property
    def interval(self) -> tuple[float, float] | None:
        """The mean test accuracy's 95 % interval, for the number of images tested: more seeds do not narrow it."""
        mean = self.mean("test_accuracy")
        if mean is None:
            return None
        return accuracy_interval(round(mean * self.tested), self.tested)

    @property
    def tested(self) -> int:
        """How many images each run was tested on."""
        outcomes = ("true_positives", "false_positives", "true_negatives", "false_negatives")
        return sum(int(self.finished[0][f"test_{outcome}"]) for outcome in outcomes)

    @property
    def remark(self) -> str:
        """What one must know before reading the numbers, such as `collapsed` or `1 of 3 failed`."""
        states = [run.state for run in self.runs]
        marks = dict.fromkeys(state for state in states if state != "done")
        if len(set(states)) == 1:
            return "".join(marks)
        return ", ".join(f"{states.count(state)} of {len(states)} {state}" for state in marks)

    def _values(self, name: str) -> list[float]:
        return [float(results[name]) for results in self.finished]


def collect(folders: Sequence[Path]) -> list[Run]:
    """Read the runs in the folders of sweeps; a run's own folder counts as a sweep of one.

    Raises:
        ConfigError: There is no run in one of them, or a file of results is damaged.
    """
    runs = []
    for folder in folders:
        places = {path.parent for name in ("results.json", "status.json") for path in folder.rglob(name)}
        if not places:
            state = "has no run in it" if folder.is_dir() else "is no folder"
            raise ConfigError(
                f"{folder} {state}: name the folder of a sweep or of a run, such as outputs/sweep/study, which "
                "holds folders with results.json or status.json in them."
            )
        runs += [run for place in sorted(places) if (run := _read(folder, place)) is not None]
    return runs


def rows(runs: Iterable[Run]) -> list[Row]:
    """Put runs that differ in their seed only together.

    The rows with the highest test accuracy come first. Trials of a search are there to be chosen from, and the test set
    must have no part in that: they are sorted by validation loss.
    """
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        groups.setdefault((run.sweep, run.model, run.optimizer, run.setting), []).append(run)
    found = [Row(tuple(group)) for group in groups.values()]
    if found and all(row.first.trial for row in found):
        return sorted(found, key=lambda row: (not row.finished, row.mean("val_loss"), row.first.name))
    return sorted(found, key=lambda row: (-(row.mean("test_accuracy") or 0), row.first.sweep, row.first.name))


def _read(sweep: Path, folder: Path) -> Run | None:
    results, status = read_results(folder), read_status(folder)
    alone = folder == sweep
    place = (sweep.resolve().parent.name if alone else sweep.resolve().name, folder.resolve().name)
    name = place[1] if alone else folder.relative_to(sweep).as_posix()
    if results:
        state = "partial" if results["status"] == "partial" else "collapsed" if results["collapsed"] else "done"
        named = (str(results["model"]), str(results["optimizer"]), int(results["seed"]))
        return Run(place[0], name, folder, *named, results, state, "")
    if status is None:
        return None
    state = "unfinished" if status.status in ("running", "done") else status.status
    return Run(place[0], name, folder, status.model, status.optimizer, status.seed, None, state, status.reason)
