"""Hyperparameters that differ within a sweep: further columns of TensorBoard's HPARAMS table."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pneumo.hyperparameters import COLUMNS
from pneumo.sweeps.naming import short_names
from pneumo.sweeps.plan import Job, split_override


@dataclass(frozen=True)
class Columns:
    """The columns of one sweep.

    Attributes:
        names: Column names by the keys of the settings.
        numbers: Keys of the columns that have numbers only; all others are shown as text.
    """

    names: dict[str, str]
    numbers: frozenset[str]

    def row(self, job: Job) -> dict[str, str | float]:
        """Return a job's values by the names of their columns."""
        row: dict[str, str | float] = {}
        for key, name in self.names.items():
            value = _value(job, key)
            row[name] = float(value) if key in self.numbers else value if isinstance(value, str) else json.dumps(value)
        return row


def make_columns(keys: Sequence[str], jobs: Sequence[Job]) -> Columns:
    """Return the columns of the settings that differ within a sweep.

    TensorBoard needs the same columns in all rows of a sweep, each with values of one type.

    Args:
        keys: Dotted keys of the settings, or names of groups.
        jobs: Jobs that have among them every kind of value.
    """
    shown = [key for key in keys if key not in COLUMNS]
    numbers = (key for key in shown if all(_is_number(_value(job, key)) for job in jobs))
    return Columns(short_names(shown), frozenset(numbers))


def _value(job: Job, key: str) -> Any:  # noqa: ANN401 (any value of a configuration)
    """Return the value of a setting, or the name that was chosen for a group."""
    value = OmegaConf.select(job.config, key)
    if isinstance(value, DictConfig):
        return dict(map(split_override, job.overrides)).get(key, "")
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
