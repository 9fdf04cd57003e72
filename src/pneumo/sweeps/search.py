"""A search: Optuna chooses what the next trials try, by the validation of those before; resumed by the same command."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import OptunaError
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from pneumo.config import config_hash
from pneumo.errors import ConfigError, TrainingError
from pneumo.evaluation.results import read_results
from pneumo.evaluation.status import read_status
from pneumo.sweeps.grid import refuse_processes
from pneumo.sweeps.plan import Job, plan_jobs
from pneumo.sweeps.session import Session, open_session, settle

_log = logging.getLogger(__name__)

_OTHER_NAME = "go on with it as it began, or take another sweep.name."
_OBJECTIVES = ("val_loss", "val_accuracy", "val_auroc")


def search(context: HydraContext, task_function: TaskFunction, config: DictConfig, overrides: Sequence[str]) -> None:
    """Run trials until there are `sweep.trials`, write the leaderboard, and tell the best trial.

    Args:
        context: Hydra's.
        task_function: Runs a job.
        config: The sweep's own configuration.
        overrides: A key with an interval or several values is searched.

    Raises:
        PneumoError: A user's mistake.
    """
    _check(config.sweep)
    folder = settle(config)
    parsed = OverridesParser.create(context.config_loader).parse_overrides(list(overrides))
    last = {override.get_key_element(): override for override in parsed}  # of two for one key
    space = {key: _distribution(override) for key, override in last.items() if override.is_sweep_override()}
    fixed = [f"{key}={override.get_value_element_as_str()}" for key, override in last.items() if key not in space]
    if not space:
        raise ConfigError("Nothing is to be searched: name an interval, such as 'optimizer.lr=interval(1e-4,1e-1)'.")
    launcher = Plugins.instance().instantiate_launcher(context, task_function, config)
    with open_session(config, launcher) as session:
        study = _open_study(config, folder)
        OmegaConf.save(config, folder / "multirun.yaml")
        jobs: dict[str, Job] = {}
        before = sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))
        complete = False
        try:
            while trials := _next(study, config.sweep, space):
                planned = _plan(context, config, fixed, trials)
                refuse_processes(planned)
                jobs |= {job.name: job for job in planned}
                session.launch(planned, trials[0].number, config.sweep.trials)
                if not _tell(study, session, trials, planned, config.sweep):
                    break
        finally:
            complete = session.sum_up(list(jobs.values()), set(), before)
            _tell_best(study, config.sweep, fixed)
    if not complete:
        raise SystemExit(1)


def _check(sweep: DictConfig) -> None:
    if sweep.objective not in _OBJECTIVES:
        raise ConfigError(
            f"sweep.objective={sweep.objective} must be one of {', '.join(_OBJECTIVES)}: a search goes by validation."
        )
    if sweep.direction not in ("minimize", "maximize"):
        raise ConfigError(f"sweep.direction={sweep.direction} must be minimize or maximize.")
    for name in ("trials", "at_once"):
        if not isinstance(sweep[name], int) or sweep[name] < 1:
            raise ConfigError(f"sweep.{name}={sweep[name]} must be a whole number from 1, such as sweep.{name}=4.")


def _open_study(config: DictConfig, folder: Path) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = config.sweep.storage or f"sqlite:///{folder / 'optuna.db'}"
    direction = config.sweep.direction
    try:
        study = optuna.create_study(
            study_name=str(config.sweep.name), storage=storage, direction=direction, load_if_exists=True
        )
    except (OptunaError, SQLAlchemyError, ImportError, ValueError) as error:
        raise ConfigError(
            f"The search's database {storage} cannot be opened ({' '.join(str(error).split())[:200]}): give the URL of "
            "one that can be written, such as sweep.storage=sqlite:////data/optuna.db, or leave sweep.storage out."
        ) from error
    if study.direction.name.lower() != direction:
        raise ConfigError(f"{config.sweep.name} is a search that goes to {study.direction.name}: {_OTHER_NAME}")
    # A sampler with the seed of an earlier part would repeat what that has tried.
    study.sampler = TPESampler(seed=config.seed * 100_000 + len(study.get_trials(deepcopy=False)))
    return study


def _next(study: optuna.Study, sweep: DictConfig, space: Mapping[str, BaseDistribution]) -> list[FrozenTrial]:
    """Give the trials to run next: those that were stopped, or new ones; none when all are done."""
    trials = study.get_trials(deepcopy=False)
    if stopped := [trial for trial in trials if trial.state == TrialState.RUNNING]:
        return stopped[: sweep.at_once]
    try:
        numbers = [study.ask(dict(space)).number for _ in range(min(sweep.at_once, sweep.trials - len(trials)))]
    except ValueError as error:
        raise ConfigError(f"{sweep.name} is a search among other values ({error}): {_OTHER_NAME}") from error
    trials = study.get_trials(deepcopy=False)
    return [trials[number] for number in numbers]


def _plan(context: HydraContext, config: DictConfig, fixed: Sequence[str], trials: Sequence[FrozenTrial]) -> list[Job]:
    overrides = [[*fixed, *(f"{key}={value}" for key, value in trial.params.items())] for trial in trials]
    return plan_jobs(context.config_loader, config, overrides, [_name(trial) for trial in trials])


def _tell(
    study: optuna.Study, session: Session, trials: Sequence[FrozenTrial], jobs: Sequence[Job], sweep: DictConfig
) -> bool:
    """Tell Optuna what came out; false if the search cannot go on: the next command then runs the trial again.

    A loss that was not finite belongs to the values that were tried; any other failure would befall all trials.
    """
    going_on = True
    for trial, job in zip(trials, jobs, strict=True):
        results, status = read_results(job.folder), read_status(job.folder)
        failed = session.outcome(job, finished=False)[0] == "failed"
        if results and results["config_hash"] == config_hash(job.config):
            study.tell(trial.number, float(results[sweep.objective]))
            _log.info("%s: %s=%.4f with %s", job.name, sweep.objective, results[sweep.objective], _words(trial.params))
        elif failed and status and status.error == TrainingError.__name__:
            study.tell(trial.number, state=TrialState.FAIL)
            going_on &= not sweep.fail_fast
        else:
            going_on = False
    return going_on


def _tell_best(study: optuna.Study, sweep: DictConfig, fixed: Sequence[str]) -> None:
    if not (done := study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))):
        return
    best = study.best_trial
    own = [override for override in fixed if not override.startswith(("sweep.", "launcher", "hydra."))]
    words = " ".join([*own, *(f"{key}={value}" for key, value in best.params.items())])
    told = (len(done), _name(best), sweep.objective, best.value, words)
    _log.info("The best of %d trials by validation is %s, %s=%.4f:\n  python train.py %s", *told)


def _distribution(override: Override) -> BaseDistribution:
    """Map what Hydra's grammar calls an interval, a choice or a range to a distribution of Optuna's."""
    value = override.value()
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        assert low is not None
        assert high is not None
        log = "log" in value.tags
        if isinstance(low, int) and isinstance(high, int) and "float" not in value.tags:
            return IntDistribution(low, high, log=log)
        return FloatDistribution(float(low), float(high), log=log)
    return CategoricalDistribution(list(override.sweep_string_iterator()))


def _name(trial: FrozenTrial) -> str:
    return f"trial-{trial.number:03d}"


def _words(params: Mapping[str, Any]) -> str:
    shown = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in params.items()}
    return " ".join(f"{key}={value}" for key, value in shown.items())
