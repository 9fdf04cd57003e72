"""Hyperparameter search with Optuna on validation results."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from optuna.trial import FrozenTrial, TrialState

from pneumo.config.checks import check_sweep
from pneumo.config.fingerprints import recorded_hashes, relevant_config
from pneumo.errors import ConfigError, NonFiniteLossError
from pneumo.runs.results import read_results
from pneumo.runs.run_names import trial_name
from pneumo.runs.status import read_status
from pneumo.sweeps.grid import MAX_JOBS, check_single_process
from pneumo.sweeps.plan import Job, make_columns, plan_jobs
from pneumo.sweeps.session import Session, open_session, resolve_sweep_dir
from pneumo.sweeps.trials import Space, Trials, open_trials, read_space

_log = logging.getLogger(__name__)
# Errors that a trial's hyperparameters can cause; any other error would affect all trials.
_TRIAL_ERRORS = (NonFiniteLossError.__name__, "OutOfMemoryError")


def search(context: HydraContext, task_function: TaskFunction, config: DictConfig, overrides: Sequence[str]) -> None:
    """Run trials until there are `sweep.trials`, write the leaderboard, and log the best trial.

    The search space consists of all keys with an interval or several values.
    """
    check_sweep(config)
    if config.sweep.trials > MAX_JOBS:
        raise ConfigError(f"sweep.trials={config.sweep.trials} must be at most {MAX_JOBS}, such as sweep.trials=60.")
    if config.sweep.overwrite:
        raise ConfigError(
            "sweep.overwrite=true must be left out, since a search cannot be overwritten. Delete "
            f"{config.hydra.sweep.dir}, or use another sweep.name."
        )
    folder = resolve_sweep_dir(config)
    space = read_space(context.config_loader, overrides)
    probes = space.probes()
    planned = plan_jobs(context.config_loader, config, probes, [f"probe-{i}" for i in range(len(probes))])
    check_single_process(planned)
    columns = make_columns([key.lstrip("+") for key in space.searched], planned)
    launcher = Plugins.instance().instantiate_launcher(context, task_function, config)
    with open_session(config, launcher) as session:
        trials = open_trials(config, folder, space, _identity(space, planned[0], config.sweep))
        session.record(config)
        states = [trial.state for trial in trials.read()]
        before = {"skipped": states.count(TrialState.COMPLETE), "failed": states.count(TrialState.FAIL)}
        jobs: dict[str, Job] = {}
        complete = False
        try:
            while chosen := trials.choose(config.sweep.at_once, config.sweep.trials):
                overridden = [space.overrides(trial.params) for trial in chosen]
                planned = plan_jobs(context.config_loader, config, overridden, [_name(trial) for trial in chosen])
                jobs |= {job.name: job for job in planned}
                session.launch(planned, columns, chosen[0].number, config.sweep.trials)
                if not _record_objectives(trials, session, chosen, planned, config.sweep):
                    break
        finally:
            complete = session.summarize(list(jobs.values()), set(), before)
            _log_best(trials, config.sweep)
    if not complete:
        raise SystemExit(1)


def _identity(space: Space, job: Job, sweep: DictConfig) -> dict[str, str]:
    """Return the identity of a search: trials are comparable only if all of it is equal."""
    groups = {key for key in space.searched if "." not in key}  # their settings differ between trials
    varied = space.searched.keys() | {f"choices.{name}" for name in groups}
    relevant = relevant_config(job.config).items()
    shared = {key: value for key, value in relevant if key not in varied and key.split(".")[0] not in groups}
    settings = json.dumps(shared, sort_keys=True)
    return {"objective": sweep.objective, "space": str(sorted(space.searched.items())), "settings": settings}


def _record_objectives(
    trials: Trials, session: Session, chosen: Sequence[FrozenTrial], jobs: Sequence[Job], sweep: DictConfig
) -> bool:
    """Store the objectives or failures of trials; return False if the search cannot continue."""
    can_continue = True
    for trial, job in zip(chosen, jobs, strict=True):
        results, status = read_results(job.folder), read_status(job.folder)
        failed = session.outcome(job)[0] == "failed"
        if results and results["config_hash"] in recorded_hashes(job.config):
            trials.record(trial.number, float(results[sweep.objective]))
            values = _format_values(trial.params)
            _log.info("%s: %s=%.4f with %s", job.name, sweep.objective, results[sweep.objective], values)
        elif failed and status and status.error in _TRIAL_ERRORS:
            trials.record(trial.number, None)
            can_continue &= not sweep.fail_fast
        else:
            can_continue = False
    return can_continue


def _log_best(trials: Trials, sweep: DictConfig) -> None:
    if (best := trials.best()) is None:
        return
    done = sum(trial.state == TrialState.COMPLETE for trial in trials.read())
    omitted = ("sweep.", "launcher", "hydra.", "~")  # not valid for train.py
    overrides = [each for each in trials.space.overrides(best.params) if not each.lstrip("+").startswith(omitted)]
    shown = f"{_name(best)}, {sweep.objective}={best.value:.4f}"
    _log.info("The best of %d trials by validation is %s:\n  python train.py %s", done, shown, shlex.join(overrides))


def _name(trial: FrozenTrial) -> str:
    return trial_name(trial.number)


def _format_values(params: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value:.4g}" if type(value) is float else f"{key}={value}" for key, value in params.items())
