"""Trials of a search in Optuna's database, validated at each read, and their search space."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import DictConfig
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import OptunaError
from optuna.samplers import TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from pneumo.common.text import short_line
from pneumo.config.relations import monitor_mode
from pneumo.errors import ConfigError
from pneumo.sweeps.grid import check_values, parse_overrides

Distribution = CategoricalDistribution | FloatDistribution | IntDistribution
# Errors of Optuna and SQLAlchemy for databases that are damaged, edited, locked, read-only or of another version
# fmt: off
_DATABASE_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError, OptunaError, RuntimeError,
    SQLAlchemyError, TypeError, ValueError,
)
# fmt: on


@dataclass(frozen=True)
class Space:
    """Search space and fixed overrides of a search."""

    searched: dict[str, Distribution]  # key -> distribution
    fixed: list[str]  # overrides that all trials share

    def overrides(self, values: Mapping[str, Any]) -> list[str]:
        """Return the overrides of a trial with these values, which must be in the space.

        Choices come from the command line and are already in Hydra's grammar.
        """
        return [*self.fixed, *(f"{key}={value}" for key, value in values.items())]

    def probes(self) -> list[list[str]]:
        """Return overrides for validation, which together contain both ends of each interval and each choice."""
        extremes = {key: _extremes(distribution) for key, distribution in self.searched.items()}
        count = max(map(len, extremes.values()))
        return [
            self.overrides({key: values[min(i, len(values) - 1)] for key, values in extremes.items()})
            for i in range(count)
        ]

    def find_error(self, trial: FrozenTrial, complete: bool) -> str | None:
        """Return why a trial's values are invalid in this space; None if they are valid.

        Values may be missing unless the trial is `complete`.
        """
        for key, value in trial.params.items():
            if key not in self.searched:
                return f"the parameter {key!r}, which this search does not have"
            if (distribution := trial.distributions.get(key)) != self.searched[key]:
                return f"{key} sampled from {distribution} instead of {self.searched[key]}"
            if not _contains(self.searched[key], value):
                return f"{key}={value!r}, which is outside {self.searched[key]}"
        missing = [key for key in self.searched if key not in trial.params]
        return f"no value of {missing[0]}" if missing and complete else None


def read_space(loader: ConfigLoader, overrides: Sequence[str]) -> Space:
    """Parse the search space and the fixed overrides of a command line."""
    parsed = parse_overrides(loader, overrides)
    check_values(parsed, combined=False)
    searched = {key: _distribution(override) for key, override in parsed.items() if override.is_sweep_override()}
    if not searched:
        raise ConfigError("The search space is empty. Add an interval, such as 'optimizer.lr=interval(1e-4,1e-1)'.")
    fixed = [f"{key}={override.get_value_element_as_str()}" for key, override in parsed.items() if key not in searched]
    return Space(searched, fixed)


def _distribution(override: Override) -> Distribution:
    value = override.value()
    if not isinstance(value, IntervalSweep):
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    low, high, log = value.start, value.end, "log" in value.tags
    assert low is not None and high is not None  # noqa: PT018
    try:
        if isinstance(low, int) and isinstance(high, int) and "float" not in value.tags:
            return IntDistribution(low, high, log=log)
        return FloatDistribution(float(low), float(high), log=log)
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{override.input_line} is not a valid interval ({error}).") from error


def _contains(distribution: Distribution, value: object) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return isinstance(value, str) and value in distribution.choices
    kind = int if isinstance(distribution, IntDistribution) else float
    return type(value) is kind and math.isfinite(value) and distribution.low <= value <= distribution.high


def _extremes(distribution: Distribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    return [distribution.low, distribution.high]


@dataclass
class Trials:
    """Trials of a search."""

    study: optuna.Study
    space: Space  # search space, which must contain the values of all trials
    url: str  # of the database, without its password

    def read(self) -> list[FrozenTrial]:
        """Read all trials in numerical order; raise a ConfigError if one cannot belong to this search."""
        with _database_errors(self.url):
            trials = self.study.get_trials(deepcopy=False)
        for number, trial in enumerate(trials):
            if error := self._find_error(trial, number):
                raise ConfigError(
                    f"The search's database {self.url} contains trial {number} with {error}. It was edited or belongs "
                    "to another search, so no trial was run. Restore an older copy, or use another sweep.name."
                )
        return trials

    def choose(self, at_once: int, total: int) -> list[FrozenTrial]:
        """Return up to `at_once` trials to run: interrupted trials, or new trials until there are `total`."""
        trials = self.read()
        stopped = [trial.number for trial in trials if trial.state == TrialState.RUNNING][:at_once]
        for number in stopped:
            if len(trials[number].params) < len(self.space.searched):
                self._complete(trials[number])
        with _database_errors(self.url):
            count = 0 if stopped else min(at_once, total - len(trials))
            numbers = stopped or [self.study.ask(dict(self.space.searched)).number for _ in range(count)]
        trials = self.read()
        chosen = [trials[number] for number in numbers]
        for trial in chosen:
            assert self.space.find_error(trial, complete=True) is None
        return chosen

    def record(self, number: int, value: float | None) -> None:
        """Store a trial's objective; None if the trial failed because of its values."""
        with _database_errors(self.url):
            if value is None:
                self.study.tell(number, state=TrialState.FAIL)
            else:
                self.study.tell(number, value)

    def best(self) -> FrozenTrial | None:
        """Return the best trial; None if no trial has finished."""
        done = [trial for trial in self.read() if trial.state == TrialState.COMPLETE]
        sign = 1 if self.study.direction == StudyDirection.MINIMIZE else -1
        return min(done, key=lambda trial: sign * (trial.value or 0.0), default=None)

    def _find_error(self, trial: FrozenTrial, number: int) -> str | None:
        if trial.number != number:
            return f"the number {trial.number!r}"
        if trial.state == TrialState.PRUNED:
            return "the state PRUNED, which pneumo never sets"
        value = trial.values[0] if trial.values and len(trial.values) == 1 else None
        done = trial.state == TrialState.COMPLETE
        if done and (type(value) is not float or not math.isfinite(value)):
            return f"the objective {trial.values}, which is not one finite number"
        return self.space.find_error(trial, complete=done)

    def _complete(self, trial: FrozenTrial) -> None:
        """Sample the missing values of a trial whose process was killed during sampling."""
        with _database_errors(self.url):
            handle = Trial(self.study, trial._trial_id)
            for key, distribution in self.space.searched.items():
                handle._suggest(key, distribution)  # as `Study.ask` does


def open_trials(config: DictConfig, folder: Path, space: Space, identity: Mapping[str, str]) -> Trials:
    """Open or create the trials of a search in its database.

    Args:
        config: The sweep's configuration.
        folder: The sweep's folder.
        space: The search space.
        identity: Properties that an existing search of the same name must have to be resumed.

    Raises:
        ConfigError: The database contains a different search or cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    own = URL.create("sqlite", database=str(folder / "optuna.db")).render_as_string()
    storage = own if config.sweep.storage is None else str(config.sweep.storage)
    minimized = monitor_mode(config.sweep.objective.replace("_", "/", 1)) == "min"
    direction = StudyDirection.MINIMIZE if minimized else StudyDirection.MAXIMIZE
    name, url = str(config.sweep.name), _hide_password(storage)
    with _database_errors(url):
        study = optuna.create_study(study_name=name, storage=storage, direction=direction, load_if_exists=True)
        stored = study.user_attrs
        directions = study.directions
    differing = [key for key in identity if key in stored and stored[key] != identity[key]]
    if directions != [direction] and "objective" not in differing:
        differing.append("objective")
    if differing:
        raise ConfigError(
            f"sweep.name={name} is an existing search that differs in: {', '.join(differing)}. Resume it with its "
            "original command, or use another sweep.name."
        )
    trials = Trials(study, space, url)
    # A resumed search needs another seed: the same seed would repeat the values of earlier trials.
    seed = (config.seed * 100_000 + len(trials.read())) % 2**32
    with _database_errors(url):
        for key, value in identity.items():
            study.set_user_attr(key, value)
    study.sampler = TPESampler(seed=seed, constant_liar=config.sweep.at_once > 1)
    return trials


@contextmanager
def _database_errors(url: str) -> Iterator[None]:
    """Convert the errors in `_DATABASE_ERRORS` to a ConfigError."""
    try:
        yield
    except _DATABASE_ERRORS as error:
        cause = error.__cause__ if isinstance(error, OptunaError) and error.__cause__ else error
        reason = short_line(str(cause).partition("\n")[0]) or type(cause).__name__
        raise ConfigError(
            f"The search's database {url} cannot be used ({reason}): it is damaged, locked, read-only or of another "
            "version of Optuna. Repair it, restore an older copy, or use another one, such as "
            "sweep.storage=sqlite:////data/optuna.db. Results of finished trials are kept in their folders."
        ) from error


def _hide_password(storage: str) -> str:
    try:
        return make_url(storage).render_as_string(hide_password=True)
    except ArgumentError:
        return storage
