"""Runs found in directories."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pneumo.errors import ConfigError
from pneumo.runs.recorded_config import read_config
from pneumo.runs.results import Results, read_results
from pneumo.runs.run_names import is_trial_name, read_setting
from pneumo.runs.status import Status, load_status

_log = logging.getLogger(__name__)

_OF_A_RUN = ("results.json", "status.json")


@dataclass(frozen=True)
class Run:
    """One run, finished or not."""

    sweep: str  # name of the sweep's folder
    name: str  # and of the run's
    folder: Path
    model: str
    optimizer: str
    seed: int
    results: Results | None  # what results.json holds; None if the run has not finished
    state: str  # done, partial, collapsed, failed, stopped or unfinished
    reason: str  # why it failed
    settings_hash: str  # of what decides its numbers beside seed and fold
    trial: bool  # whether a search made it

    @property
    def setting(self) -> str:
        """What tells the run from others of its network, optimizer, seed and fold: the rest of its name."""
        return read_setting(self.name, self.model, self.optimizer, self.seed)

    @property
    def fold(self) -> int:
        """The part of the training patients that was held out; -1 if they are not divided into folds."""
        return int(self.results["fold"]) if self.results else -1


def is_run(folder: Path) -> bool:
    """Return whether a folder is a run's own."""
    return any(os.path.exists(folder / name) for name in _OF_A_RUN)


def collect(folders: Sequence[Path]) -> list[Run]:
    """Read the runs in the folders of sweeps, each once; a run's own folder counts as a sweep of one.

    Raises:
        ConfigError: There is no run in one of them, or a file of results is damaged.
    """
    runs: dict[Path, Run] = {}
    damaged: list[str] = []
    searches: dict[Path, bool] = {}
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
            if run := _read(sweep, label, place, status, searches):
                runs[place] = run
    if damaged and not runs:
        raise ConfigError(damaged[0])
    if damaged:
        _log.warning("%d status.json could not be read, and count as missing. The first: %s", len(damaged), damaged[0])
    return list(runs.values())


def _read(sweep: Path, label: str, folder: Path, status: Status | None, searches: dict[Path, bool]) -> Run | None:
    results = read_results(folder)
    name = folder.name if folder == sweep else folder.relative_to(sweep).as_posix()
    trial = _is_trial(name, folder, searches)
    if results:
        state = "partial" if results["status"] == "partial" else "collapsed" if results["collapsed"] else "done"
        model, optimizer, seed, settings = (results[key] for key in ("model", "optimizer", "seed", "settings_hash"))
        # A job's status has the hash of its configuration as composed, results of earlier versions a later one.
        composed = (status and status.status == "done" and status.settings_hash) or str(settings)
        return Run(label, name, folder, str(model), str(optimizer), int(seed), results, state, "", composed, trial)
    if status is None:
        return None
    state = status.status if status.status in ("failed", "stopped") else "unfinished"
    model, optimizer, seed = status.model, status.optimizer, status.seed
    return Run(label, name, folder, model, optimizer, seed, None, state, status.reason, status.settings_hash, trial)


def _is_trial(name: str, folder: Path, searches: dict[Path, bool]) -> bool:
    """Return whether a search made a run: it is named as a trial, and its configuration, if recorded, has trials.

    Jobs of one folder are of one sweep, so one configuration of them is read, which takes 30 ms; `searches` keeps what
    was found.
    """
    if not is_trial_name(name):
        return False
    if folder.parent not in searches:
        try:
            sweep = read_config(folder).get("sweep")
        except ConfigError:  # nothing is recorded
            return True
        searches[folder.parent] = isinstance(sweep, dict) and sweep.get("trials") is not None
    return searches[folder.parent]
