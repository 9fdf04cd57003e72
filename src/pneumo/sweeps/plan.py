"""The plan of a sweep: its jobs, their names and hyperparameters, before anything runs."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pneumo.common.files import bounded_name
from pneumo.config.checks import check_config, list_overrides
from pneumo.config.fingerprints import COLUMNS
from pneumo.config.output_folder import set_hydra
from pneumo.errors import ConfigError
from pneumo.runs.run_names import IN_EVERY_NAME

_LONGEST = 24  # characters of a value


def job_name(base: str, values: Mapping[str, str], varied: Sequence[str]) -> str:
    """Name a job: resnext-sgd-s0, and after that what else differs between the sweep's jobs.

    `values` has the job's overrides by their keys, `varied` the keys that differ between jobs.
    """
    parts = [base]
    for key, name in short_names([key for key in varied if key not in IN_EVERY_NAME]).items():
        if "." not in key:  # a choice of a group, such as `light`
            parts.append(_safe(values[key]))
        else:  # `lr0.01`, or `split-patient`
            between = "" if re.match(r"[-+]?[.\d]", values[key]) else "-"
            parts.append(f"{_safe(name)}{between}{_safe(values[key])}")
    return bounded_name("-".join(parts))


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return the last parts of dotted keys by the keys; keys that share one keep their whole names."""
    last = {key: key.rpartition(".")[2] for key in keys}
    counts = Counter(last.values())
    return {key: name if counts[name] == 1 else key for key, name in last.items()}


def _safe(text: str) -> str:
    """Keep what is safe in a file's name; what that changes or shortens ends in a hash, so that no two become one."""
    plain = text.strip("'\"")
    kept = re.sub(r"[^A-Za-z0-9.+_-]+", "_", plain).strip("_.")
    if kept == plain and len(kept) <= _LONGEST:
        return kept
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
    return f"{kept[-_LONGEST:].lstrip('_.-')}_{digest[:4]}"


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    name: str  # of its folder, in the sweep's
    folder: Path  # where it writes
    overrides: tuple[str, ...]  # what tells it from the configuration that all share
    config: DictConfig  # what it runs, resolved


def plan_jobs(
    loader: ConfigLoader, config: DictConfig, jobs: Sequence[Sequence[str]], names: Sequence[str] | None = None
) -> list[Job]:
    """Compose each job's configuration, check it, and name its folder; raise a ConfigError if two jobs share one.

    Without names of folders, `hydra.sweep.subdir` names them and, unless the user has set that, what else differs.
    """
    values = [dict(map(_split_override, job)) for job in jobs]
    given = list_overrides(config.hydra.overrides.hydra)
    own_names = any(override.startswith("hydra.sweep.subdir=") for override in given)
    varied = [] if own_names else varied_keys(jobs)
    planned = []
    for number, overrides in enumerate(jobs):
        cfg = loader.load_sweep_config(config, list(overrides))
        for key in ("job.num", "job.id"):
            set_hydra(cfg, key, number)  # as Hydra would, for names that ask for them
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(cfg)
        try:
            name = names[number] if names else job_name(str(cfg.hydra.sweep.subdir), values[number], varied)
            planned.append(_describe(cfg, Path(config.hydra.sweep.dir), name, overrides))
        except OmegaConfBaseException as error:
            reason = str(error).partition("\n")[0]
            raise ConfigError(f"A job's configuration cannot be resolved ({reason}): {' '.join(overrides)}.") from error
        finally:
            HydraConfig.instance().cfg = before
    if double := [name for name, count in Counter(job.name for job in planned).items() if count > 1]:
        raise ConfigError(
            f"Several jobs of this sweep would write into one folder: {', '.join(double)}. Give each its own values, "
            "and if you set hydra.sweep.subdir, leave it out, or name there what differs, as in "
            "'hydra.sweep.subdir=lr${optimizer.lr}'."
        )
    return planned


def _describe(cfg: DictConfig, sweep: Path, name: str, overrides: Sequence[str]) -> Job:
    folder = sweep / name
    set_hydra(cfg, "runtime.output_dir", str(folder))
    HydraConfig.instance().set_config(cfg)  # which keeps a copy, without the folder so far
    task = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    check_config(task)  # which explains references that cannot be resolved
    OmegaConf.resolve(task)  # while it is clear which job's choices are meant
    return Job(name, folder, tuple(overrides), task)


def varied_keys(jobs: Sequence[Sequence[str]]) -> list[str]:
    """Return the keys whose values differ between jobs, given by their overrides, in their order."""
    values = [dict(map(_split_override, job)) for job in jobs]
    keys = dict.fromkeys(key for job in values for key in job)
    return [key for key in keys if len({job.get(key) for job in values}) > 1]


def _split_override(override: str) -> tuple[str, str]:
    """Return the key and the value of an override."""
    key, _, value = override.partition("=")
    return key.lstrip("+"), value


@dataclass(frozen=True)
class Columns:
    """The columns of one sweep."""

    names: dict[str, str]  # column names by the keys of the settings
    numbers: frozenset[str]  # keys of the columns that have numbers only; all others are shown as text

    def row(self, job: Job) -> dict[str, str | float]:
        """Return a job's values by the names of their columns."""
        row: dict[str, str | float] = {}
        for key, name in self.names.items():
            value = _value(job, key)
            row[name] = float(value) if key in self.numbers else value if isinstance(value, str) else json.dumps(value)
        return row


def make_columns(keys: Sequence[str], jobs: Sequence[Job]) -> Columns:
    """Return the columns of the settings that differ within a sweep.

    TensorBoard needs the same columns in all rows of a sweep, each with values of one type. Keys may be names of
    groups. The jobs have among them every kind of value.
    """
    shown = [key for key in keys if key not in COLUMNS]
    numbers = (key for key in shown if all(_is_number(_value(job, key)) for job in jobs))
    return Columns(short_names(shown), frozenset(numbers))


def _value(job: Job, key: str) -> Any:  # noqa: ANN401 (any value of a configuration)
    """Return the value of a setting, or the name that was chosen for a group."""
    value = OmegaConf.select(job.config, key)
    if isinstance(value, DictConfig):
        return dict(map(_split_override, job.overrides)).get(key, "")
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
