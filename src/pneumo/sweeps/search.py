"""A search: Optuna chooses what the next trials try, by the validation of those before; resumed by the same command."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import OptunaError
from optuna.samplers import TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from pneumo.config import check_sweep
from pneumo.errors import ConfigError, NonFiniteLossError
from pneumo.evaluation.results import read_results
from pneumo.evaluation.status import read_status
from pneumo.fingerprints import decisive_config, recorded_hashes
from pneumo.monitors import monitor_mode
from pneumo.sweeps.columns import make_columns
from pneumo.sweeps.grid import refuse_divided_paths, refuse_processes, refuse_shared
from pneumo.sweeps.plan import Job, plan_jobs
from pneumo.sweeps.session import Session, open_session, settle

_log = logging.getLogger(__name__)

_OTHER_NAME = "go on with it as it began, or take another sweep.name."
# What the values that are tried can be to blame for; any other failure would befall all trials.
_OF_THE_VALUES = (NonFiniteLossError.__name__, "OutOfMemoryError")


@dataclass(frozen=True)
class _Space:
    """What a search tries.

    Attributes:
        searched: Distributions by the keys that are searched.
        fixed: Overrides that all trials share.
    """

    searched: dict[str, BaseDistribution]
    fixed: list[str]

    def overrides(self, values: Mapping[str, Any]) -> list[str]:
        return [*self.fixed, *(f"{key}={value}" for key, value in values.items())]

    def probes(self) -> list[list[str]]:
        """Give overrides that try each end of an interval and each choice."""
        ends = {key: _ends(distribution) for key, distribution in self.searched.items()}
        most = max(map(len, ends.values()))
        return [self.overrides({key: of[min(i, len(of) - 1)] for key, of in ends.items()}) for i in range(most)]


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
    check_sweep(config)
    if config.sweep.overwrite:
        raise ConfigError(
            f"A search is not run anew in its place: delete {config.hydra.sweep.dir}, or take another name."
        )
    folder = settle(config)
    space = _read_space(context.config_loader, overrides)
    probes = space.probes()
    planned = plan_jobs(context.config_loader, config, probes, [f"probe-{i}" for i in range(len(probes))])
    refuse_processes(planned)
    columns = make_columns([key.lstrip("+") for key in space.searched], planned)
    launcher = Plugins.instance().instantiate_launcher(context, task_function, config)
    with open_session(config, launcher) as session:
        study = _open_study(config, folder, _describe(space, planned[0], config.sweep))
        OmegaConf.save(config, folder / "multirun.yaml")
        states = [trial.state for trial in study.get_trials(deepcopy=False)]
        before = {"skipped": states.count(TrialState.COMPLETE), "failed": states.count(TrialState.FAIL)}
        jobs: dict[str, Job] = {}
        complete = False
        try:
            while trials := _next(study, config.sweep, space.searched):
                chosen = [space.overrides(trial.params) for trial in trials]
                planned = plan_jobs(context.config_loader, config, chosen, [_name(trial) for trial in trials])
                jobs |= {job.name: job for job in planned}
                session.launch(planned, columns, trials[0].number, config.sweep.trials)
                if not _tell(study, session, trials, planned, config.sweep):
                    break
        finally:
            complete = session.sum_up(list(jobs.values()), set(), before)
            _tell_best(study, config.sweep, space)
    if not complete:
        raise SystemExit(1)


def _read_space(loader: ConfigLoader, overrides: Sequence[str]) -> _Space:
    parsed = OverridesParser.create(loader).parse_overrides(list(overrides))
    last = {override.get_key_element(): override for override in parsed}  # of two for one key
    refuse_shared(last.values())
    refuse_divided_paths(last.values())
    searched = {key: _distribution(override) for key, override in last.items() if override.is_sweep_override()}
    if not searched:
        raise ConfigError("Nothing is to be searched: name an interval, such as 'optimizer.lr=interval(1e-4,1e-1)'.")
    fixed = [f"{key}={override.get_value_element_as_str()}" for key, override in last.items() if key not in searched]
    return _Space(searched, fixed)


def _describe(space: _Space, job: Job, sweep: DictConfig) -> dict[str, str]:
    """Tell this search from others: its trials can only be compared if all of this is the same."""
    shared = {key: value for key, value in decisive_config(job.config).items() if key not in space.searched}
    chosen = {key for key in space.searched if "." not in key}  # groups, whose content differs between trials
    shared = {key: value for key, value in shared.items() if key.split(".")[0] not in chosen}
    shared = {key: value for key, value in shared.items() if key not in {f"choices.{name}" for name in chosen}}
    settings = json.dumps(shared, sort_keys=True)
    return {"objective": sweep.objective, "space": str(sorted(space.searched.items())), "settings": settings}


def _open_study(config: DictConfig, folder: Path, about: Mapping[str, str]) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    own = URL.create("sqlite", database=str(folder / "optuna.db")).render_as_string()
    storage = config.sweep.storage or own
    lowest = monitor_mode(config.sweep.objective.replace("_", "/", 1)) == "min"
    direction = StudyDirection.MINIMIZE if lowest else StudyDirection.MAXIMIZE
    name = str(config.sweep.name)
    try:
        study = optuna.create_study(study_name=name, storage=storage, direction=direction, load_if_exists=True)
    except (OptunaError, SQLAlchemyError, ImportError, ValueError) as error:
        raise ConfigError(
            f"The search's database {storage} cannot be opened ({' '.join(str(error).split())[:200]}): give the URL of "
            "one that can be written, such as sweep.storage=sqlite:////data/optuna.db, or leave sweep.storage out."
        ) from error
    stored = study.user_attrs
    if differing := [key for key in about if key in stored and stored[key] != about[key]]:
        raise ConfigError(f"{name} is a search with another {' and other '.join(differing)}: {_OTHER_NAME}")
    for key, value in about.items():
        study.set_user_attr(key, value)
    # A sampler with the seed of an earlier part would repeat what that has tried.
    seed = (config.seed * 100_000 + len(study.get_trials(deepcopy=False))) % 2**32
    study.sampler = TPESampler(seed=seed, constant_liar=config.sweep.at_once > 1)
    return study


def _next(study: optuna.Study, sweep: DictConfig, space: Mapping[str, BaseDistribution]) -> list[FrozenTrial]:
    """Give the trials to run next: those that were stopped, or new ones; none when all are done."""
    trials = study.get_trials(deepcopy=False)
    if stopped := [trial for trial in trials if trial.state == TrialState.RUNNING]:
        return stopped[: sweep.at_once]
    numbers = [study.ask(dict(space)).number for _ in range(min(sweep.at_once, sweep.trials - len(trials)))]
    trials = study.get_trials(deepcopy=False)
    return [trials[number] for number in numbers]


def _tell(
    study: optuna.Study, session: Session, trials: Sequence[FrozenTrial], jobs: Sequence[Job], sweep: DictConfig
) -> bool:
    """Tell Optuna what came out; false if the search cannot go on: the next command then runs the trial again.

    A failure that the values are to blame for is an answer too.
    """
    going_on = True
    for trial, job in zip(trials, jobs, strict=True):
        results, status = read_results(job.folder), read_status(job.folder)
        failed = session.outcome(job, finished=False)[0] == "failed"
        if results and results["config_hash"] in recorded_hashes(job.config):
            study.tell(trial.number, float(results[sweep.objective]))
            _log.info("%s: %s=%.4f with %s", job.name, sweep.objective, results[sweep.objective], _words(trial.params))
        elif failed and status and status.error in _OF_THE_VALUES:
            study.tell(trial.number, state=TrialState.FAIL)
            going_on &= not sweep.fail_fast
        else:
            going_on = False
    return going_on


def _tell_best(study: optuna.Study, sweep: DictConfig, space: _Space) -> None:
    if not (done := study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))):
        return
    best = study.best_trial
    strange = ("sweep.", "launcher", "hydra.", "~")  # what train.py does not know, or is no override
    words = [word for word in space.overrides(best.params) if not word.startswith(strange)]
    told = (len(done), _name(best), sweep.objective, best.value, shlex.join(words))
    _log.info("The best of %d trials by validation is %s, %s=%.4f:\n  python train.py %s", *told)


def _distribution(override: Override) -> BaseDistribution:
    """Map what Hydra's grammar calls an interval, a choice or a range to a distribution of Optuna's."""
    value = override.value()
    if not isinstance(value, IntervalSweep):
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    low, high, log = value.start, value.end, "log" in value.tags
    assert low is not None
    assert high is not None
    try:
        if isinstance(low, int) and isinstance(high, int) and "float" not in value.tags:
            return IntDistribution(low, high, log=log)
        return FloatDistribution(float(low), float(high), log=log)
    except ValueError as error:
        raise ConfigError(f"{override.input_line} is no interval to search ({error}).") from error


def _ends(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return [distribution.low, distribution.high]


def _name(trial: FrozenTrial) -> str:
    return f"trial-{trial.number:03d}"


def _words(params: Mapping[str, Any]) -> str:
    shown = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in params.items()}
    return " ".join(f"{key}={value}" for key, value in shown.items())
