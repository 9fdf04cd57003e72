"""Runs of sweeps, collected from folders."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pneumo.errors import ConfigError
from pneumo.runs.recorded_config import read_config
from pneumo.runs.results import Results, read_results
from pneumo.runs.run_names import is_trial_name, parse_setting
from pneumo.runs.status import Status, load_status

_log = logging.getLogger(__name__)

_RUN_FILES = ("results.json", "status.json")


@dataclass(frozen=True)
class Run:
    """One run, finished or not."""

    sweep: str  # name of the sweep's folder
    name: str  # name of the run's folder
    folder: Path
    model: str
    optimizer: str
    seed: int
    results: Results | None  # content of results.json; None if the run has not finished
    state: str  # done, partial, collapsed, failed, stopped or unfinished
    reason: str  # why it failed
    settings_hash: str  # of all settings that affect its results, except seed and fold
    trial: bool  # part of a search

    @property
    def setting(self) -> str:
        """The part of its name without model, optimizer, seed and fold."""
        return parse_setting(self.name, self.model, self.optimizer, self.seed)

    @property
    def fold(self) -> int:
        """The held-out fold of the training patients; -1 without folds."""
        return int(self.results["fold"]) if self.results else -1


def is_run(folder: Path) -> bool:
    """Return whether a folder is a run folder."""
    return any(os.path.exists(folder / name) for name in _RUN_FILES)


def collect(folders: Sequence[Path]) -> list[Run]:
    """Read the runs in sweep folders, each once; a run folder counts as a sweep with one run.

    Raises:
        ConfigError: A folder contains no run, or a results.json is damaged.
    """
    runs: dict[Path, Run] = {}
    damaged: list[str] = []
    searches: dict[Path, bool] = {}
    homes = {sweep: sweep.parent if is_run(sweep) else sweep for sweep in (folder.resolve() for folder in folders)}
    names = [home.name for home in set(homes.values())]
    for sweep, home in homes.items():
        run_folders = {path.parent for name in _RUN_FILES for path in sweep.rglob(name)}
        if not run_folders:
            state = "contains no readable run" if os.path.isdir(sweep) else "is not a folder"
            raise ConfigError(
                f"{sweep} {state}. Use the folder of a sweep or a run, such as outputs/sweep/study; its runs have a "
                "results.json or status.json."
            )
        label = home.name if names.count(home.name) == 1 else str(home)
        for folder in sorted(run_folders - runs.keys()):
            status = None
            try:
                status = load_status(folder)
            except ConfigError as error:
                damaged.append(str(error))
            if run := _read(sweep, label, folder, status, searches):
                runs[folder] = run
    if damaged and not runs:
        raise ConfigError(damaged[0])
    if damaged:
        _log.warning("Ignored %d unreadable status.json. The first: %s", len(damaged), damaged[0])
    return list(runs.values())


def _read(sweep: Path, label: str, folder: Path, status: Status | None, searches: dict[Path, bool]) -> Run | None:
    results = read_results(folder)
    name = folder.name if folder == sweep else folder.relative_to(sweep).as_posix()
    trial = _is_trial(name, folder, searches)
    if results:
        state = "partial" if results["status"] == "partial" else "collapsed" if results["collapsed"] else "done"
        model, optimizer, seed, settings = (results[key] for key in ("model", "optimizer", "seed", "settings_hash"))
        # Earlier versions changed some settings after composition, so the hash in their results.json may differ.
        composed = (status and status.status == "done" and status.settings_hash) or str(settings)
        return Run(label, name, folder, str(model), str(optimizer), int(seed), results, state, "", composed, trial)
    if status is None:
        return None
    state = status.status if status.status in ("failed", "stopped") else "unfinished"
    model, optimizer, seed = status.model, status.optimizer, status.seed
    return Run(label, name, folder, model, optimizer, seed, None, state, status.reason, status.settings_hash, trial)


def _is_trial(name: str, folder: Path, searches: dict[Path, bool]) -> bool:
    """Return whether a run is a trial: it has a trial's name, and its recorded configuration, if any, has trials.

    The runs in a folder belong to one sweep, so one configuration per folder is read; reading takes 30 ms. `searches`
    caches the results.
    """
    if not is_trial_name(name):
        return False
    if folder.parent not in searches:
        try:
            sweep = read_config(folder).get("sweep")
        except ConfigError:  # no configuration is recorded
            return True
        searches[folder.parent] = isinstance(sweep, dict) and sweep.get("trials") is not None
    return searches[folder.parent]
