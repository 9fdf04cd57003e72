"""Trials of a search in Optuna's database, checked whenever they are read; the space that they may try."""

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

from pneumo.common.text import plain
from pneumo.config.relations import monitor_mode
from pneumo.errors import ConfigError
from pneumo.sweeps.grid import check_values, parse_overrides

Distribution = CategoricalDistribution | FloatDistribution | IntDistribution
# What Optuna and SQLAlchemy raise for databases that are damaged, edited, locked, read-only or of another version.
# fmt: off
_DATABASE = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError, OptunaError, RuntimeError,
    SQLAlchemyError, TypeError, ValueError,
)
# fmt: on


@dataclass(frozen=True)
class Space:
    """What a search tries."""

    searched: dict[str, Distribution]  # by the keys that are searched
    fixed: list[str]  # overrides that all trials share

    def overrides(self, values: Mapping[str, Any]) -> list[str]:
        """Return the overrides of a trial with these values, which must lie inside the space.

        Choices are in Hydra's grammar already, as the command line declared them.
        """
        return [*self.fixed, *(f"{key}={value}" for key, value in values.items())]

    def probes(self) -> list[list[str]]:
        """Return overrides that try each end of an interval and each choice."""
        ends = {key: _ends(distribution) for key, distribution in self.searched.items()}
        most = max(map(len, ends.values()))
        return [self.overrides({key: of[min(i, len(of) - 1)] for key, of in ends.items()}) for i in range(most)]

    def find_fault(self, trial: FrozenTrial, complete: bool) -> str | None:
        """Return what keeps a trial's values from being values of this space; None if nothing does.

        Of a trial that is not complete, values may be missing.
        """
        for key, value in trial.params.items():
            if key not in self.searched:
                return f"the parameter {key!r}, which this search does not have"
            if (drawn_from := trial.distributions.get(key)) != self.searched[key]:
                return f"{key} drawn from {drawn_from}, which is not what this search declares"
            if not _contains(self.searched[key], value):
                return f"{key}={value!r}, which lies outside of {self.searched[key]}"
        missing = [key for key in self.searched if key not in trial.params]
        return f"no value of {missing[0]}" if missing and complete else None


def read_space(loader: ConfigLoader, overrides: Sequence[str]) -> Space:
    """Read the search space and the fixed overrides of a command line."""
    parsed = parse_overrides(loader, overrides)
    check_values(parsed, combined=False)
    searched = {key: _distribution(override) for key, override in parsed.items() if override.is_sweep_override()}
    if not searched:
        raise ConfigError("Nothing is to be searched: name an interval, such as 'optimizer.lr=interval(1e-4,1e-1)'.")
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
        raise ConfigError(f"{override.input_line} is no interval to search ({error}).") from error


def _contains(distribution: Distribution, value: object) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return isinstance(value, str) and value in distribution.choices
    kind = int if isinstance(distribution, IntDistribution) else float
    return type(value) is kind and math.isfinite(value) and distribution.low <= value <= distribution.high


def _ends(distribution: Distribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    return [distribution.low, distribution.high]


@dataclass
class Trials:
    """The trials of one search."""

    study: optuna.Study  # Optuna's
    space: Space  # from which all values must come
    shown: str  # the database, without its password

    def read(self) -> list[FrozenTrial]:
        """Read all trials in the order of their numbers; raise a ConfigError if one is none of this search's."""
        with _database_errors(self.shown):
            trials = self.study.get_trials(deepcopy=False)
        for number, trial in enumerate(trials):
            if fault := self._find_fault(trial, number):
                raise ConfigError(
                    f"The search's database {self.shown} holds a trial {number} with {fault}, so it was edited or "
                    "belongs to another search, and nothing of it is run. Put an older copy of it in its place, or "
                    "take another sweep.name."
                )
        return trials

    def choose(self, at_once: int, total: int) -> list[FrozenTrial]:
        """Choose up to `at_once` trials to run: those that were stopped, or new ones until there are `total`."""
        trials = self.read()
        stopped = [trial.number for trial in trials if trial.state == TrialState.RUNNING][:at_once]
        for number in stopped:
            if len(trials[number].params) < len(self.space.searched):
                self._complete(trials[number])
        with _database_errors(self.shown):
            count = 0 if stopped else min(at_once, total - len(trials))
            numbers = stopped or [self.study.ask(dict(self.space.searched)).number for _ in range(count)]
        trials = self.read()
        chosen = [trials[number] for number in numbers]
        for trial in chosen:
            assert self.space.find_fault(trial, complete=True) is None
        return chosen

    def record(self, number: int, value: float | None) -> None:
        """Store a trial's objective; None if its values failed."""
        with _database_errors(self.shown):
            if value is None:
                self.study.tell(number, state=TrialState.FAIL)
            else:
                self.study.tell(number, value)

    def best(self) -> FrozenTrial | None:
        """Return the best trial, None if none has finished."""
        done = [trial for trial in self.read() if trial.state == TrialState.COMPLETE]
        sign = 1 if self.study.direction == StudyDirection.MINIMIZE else -1
        return min(done, key=lambda trial: sign * (trial.value or 0.0), default=None)

    def _find_fault(self, trial: FrozenTrial, number: int) -> str | None:
        if trial.number != number:
            return f"the number {trial.number!r}"
        if trial.state == TrialState.PRUNED:
            return "the state PRUNED, which no trial of pneumo's has"
        value = trial.values[0] if trial.values and len(trial.values) == 1 else None
        done = trial.state == TrialState.COMPLETE
        if done and (type(value) is not float or not math.isfinite(value)):
            return f"the objective {trial.values}, which is not one finite number"
        return self.space.find_fault(trial, complete=done)

    def _complete(self, trial: FrozenTrial) -> None:
        """Draw the values that a trial lacks because the process was killed while they were drawn."""
        with _database_errors(self.shown):
            handle = Trial(self.study, trial._trial_id)
            for key, distribution in self.space.searched.items():
                handle._suggest(key, distribution)  # as `Study.ask` does


def open_trials(config: DictConfig, folder: Path, space: Space, about: Mapping[str, str]) -> Trials:
    """Open or start the trials of a search; raise a ConfigError if the database is another search's or unreadable.

    `about` is what a search of the same name must share with this one to be the same search.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    own = URL.create("sqlite", database=str(folder / "optuna.db")).render_as_string()
    storage = own if config.sweep.storage is None else str(config.sweep.storage)
    lowest = monitor_mode(config.sweep.objective.replace("_", "/", 1)) == "min"
    direction = StudyDirection.MINIMIZE if lowest else StudyDirection.MAXIMIZE
    name, shown = str(config.sweep.name), _hide_password(storage)
    with _database_errors(shown):
        study = optuna.create_study(study_name=name, storage=storage, direction=direction, load_if_exists=True)
        stored = study.user_attrs
        directions = study.directions
    differing = [key for key in about if key in stored and stored[key] != about[key]]
    if directions != [direction] and "objective" not in differing:
        differing.append("objective")
    if differing:
        raise ConfigError(
            f"{name} is a search with another {' and other '.join(differing)}: go on with it as it began, or take "
            "another sweep.name."
        )
    trials = Trials(study, space, shown)
    # A sampler with the seed of an earlier part would repeat what that has tried.
    seed = (config.seed * 100_000 + len(trials.read())) % 2**32
    with _database_errors(shown):
        for key, value in about.items():
            study.set_user_attr(key, value)
    study.sampler = TPESampler(seed=seed, constant_liar=config.sweep.at_once > 1)
    return trials


@contextmanager
def _database_errors(shown: str) -> Iterator[None]:
    """Raise a ConfigError instead of what keeps a database from being used."""
    try:
        yield
    except _DATABASE as error:
        cause = error.__cause__ if isinstance(error, OptunaError) and error.__cause__ else error
        reason = plain(str(cause).partition("\n")[0]) or type(cause).__name__
        raise ConfigError(
            f"The search's database {shown} cannot be used ({reason}): it is damaged, locked, read-only or of another "
            "version of Optuna. Results of finished trials are kept in their folders. Mend it or put an older copy of "
            "it in its place, or name one that can be written, such as sweep.storage=sqlite:////data/optuna.db."
        ) from error


def _hide_password(storage: str) -> str:
    try:
        return make_url(storage).render_as_string(hide_password=True)
    except ArgumentError:
        return storage
