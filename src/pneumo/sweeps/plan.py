"""Plan of a sweep: its jobs with their names, folders and configurations, before anything runs."""

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
from pneumo.config.checks import check_config, overrides_as_text
from pneumo.config.fingerprints import HPARAMS_KEYS
from pneumo.config.output_folder import set_hydra
from pneumo.errors import ConfigError
from pneumo.runs.run_names import IN_EVERY_NAME

_MAX_VALUE = 24  # characters of a value in a name


def job_name(base: str, values: Mapping[str, str], varied: Sequence[str]) -> str:
    """Return a job's name: `base`, such as resnext-sgd-s0, followed by the other values that differ between jobs.

    Args:
        base: The first part of the name.
        values: The job's overrides by key.
        varied: Keys whose values differ between jobs.
    """
    parts = [base]
    for key, name in short_names([key for key in varied if key not in IN_EVERY_NAME]).items():
        if "." not in key:  # an option of a config group, such as `light`
            parts.append(_safe(values[key]))
        else:  # `lr0.01`, or `split-patient`
            separator = "" if re.match(r"[-+]?[.\d]", values[key]) else "-"
            parts.append(f"{_safe(name)}{separator}{_safe(values[key])}")
    return bounded_name("-".join(parts))


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return the last part of each dotted key, or the full key where several share their last part."""
    last = {key: key.rpartition(".")[2] for key in keys}
    counts = Counter(last.values())
    return {key: name if counts[name] == 1 else key for key, name in last.items()}


def _safe(text: str) -> str:
    """Convert text to a part of a file name; changed or shortened text ends in a hash to remain unique."""
    plain = text.strip("'\"")
    safe = re.sub(r"[^A-Za-z0-9.+_-]+", "_", plain).strip("_.")
    if safe == plain and len(safe) <= _MAX_VALUE:
        return safe
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
    return f"{safe[-_MAX_VALUE:].lstrip('_.-')}_{digest[:4]}"


@dataclass(frozen=True)
class Job:
    """A single run of a sweep."""

    name: str  # of its folder, relative to the sweep's folder
    folder: Path  # output folder
    overrides: tuple[str, ...]  # relative to the sweep's shared configuration
    config: DictConfig  # resolved


def plan_jobs(
    loader: ConfigLoader, config: DictConfig, jobs: Sequence[Sequence[str]], names: Sequence[str] | None = None
) -> list[Job]:
    """Compose and check the configuration of each job, and name its folder.

    Args:
        loader: Hydra's configuration loader.
        config: The sweep's configuration.
        jobs: Overrides of each job.
        names: Folder names. By default a name is `hydra.sweep.subdir`, followed by the other values that differ
            between jobs unless the user has set `hydra.sweep.subdir`.

    Raises:
        ConfigError: A configuration is invalid, or two jobs have the same folder.
    """
    values = [dict(map(_split_override, job)) for job in jobs]
    hydra_overrides = overrides_as_text(config.hydra.overrides.hydra)
    user_subdir = any(override.startswith("hydra.sweep.subdir=") for override in hydra_overrides)
    varied = [] if user_subdir else varied_keys(jobs)
    planned = []
    for number, overrides in enumerate(jobs):
        cfg = loader.load_sweep_config(config, list(overrides))
        for key in ("job.num", "job.id"):
            set_hydra(cfg, key, number)  # as Hydra would: folder names may refer to them
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(cfg)
        try:
            name = names[number] if names else job_name(str(cfg.hydra.sweep.subdir), values[number], varied)
            planned.append(_make_job(cfg, Path(config.hydra.sweep.dir), name, overrides))
        except OmegaConfBaseException as error:
            reason = str(error).partition("\n")[0]
            raise ConfigError(f"A job's configuration cannot be resolved ({reason}): {' '.join(overrides)}.") from error
        finally:
            HydraConfig.instance().cfg = before
    if duplicates := [name for name, count in Counter(job.name for job in planned).items() if count > 1]:
        raise ConfigError(
            f"Several jobs of this sweep would write to the same folder: {', '.join(duplicates)}. Use different values "
            "for each job. If you set hydra.sweep.subdir, remove it or include the values that differ, as in "
            "'hydra.sweep.subdir=lr${optimizer.lr}'."
        )
    return planned


def _make_job(cfg: DictConfig, sweep: Path, name: str, overrides: Sequence[str]) -> Job:
    folder = sweep / name
    set_hydra(cfg, "runtime.output_dir", str(folder))
    HydraConfig.instance().set_config(cfg)  # again, since HydraConfig stores a copy without the folder
    task = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    check_config(task)  # before `resolve`, since its errors explain unresolvable interpolations
    OmegaConf.resolve(task)  # now, while HydraConfig has this job's choices
    return Job(name, folder, tuple(overrides), task)


def varied_keys(jobs: Sequence[Sequence[str]]) -> list[str]:
    """Return the keys whose values differ between jobs, in the order of the overrides."""
    values = [dict(map(_split_override, job)) for job in jobs]
    keys = dict.fromkeys(key for job in values for key in job)
    return [key for key in keys if len({job.get(key) for job in values}) > 1]


def _split_override(override: str) -> tuple[str, str]:
    """Return the key and the value of an override."""
    key, _, value = override.partition("=")
    return key.lstrip("+"), value


@dataclass(frozen=True)
class Columns:
    """Columns of a sweep's settings in TensorBoard's HPARAMS table."""

    names: dict[str, str]  # setting's key -> column name
    numbers: frozenset[str]  # keys of the numeric columns; all others are text

    def row(self, job: Job) -> dict[str, str | float]:
        """Return a job's values by column name."""
        row: dict[str, str | float] = {}
        for key, name in self.names.items():
            value = _value(job, key)
            row[name] = float(value) if key in self.numbers else value if isinstance(value, str) else json.dumps(value)
        return row


def make_columns(keys: Sequence[str], jobs: Sequence[Job]) -> Columns:
    """Return the columns for settings that differ within a sweep.

    TensorBoard requires the same columns in all rows of a sweep, each with values of one type.

    Args:
        keys: Keys of settings or names of config groups.
        jobs: Jobs that together include all types of each setting's values.
    """
    shown = [key for key in keys if key not in HPARAMS_KEYS]
    numbers = (key for key in shown if all(_is_number(_value(job, key)) for job in jobs))
    return Columns(short_names(shown), frozenset(numbers))


def _value(job: Job, key: str) -> Any:  # noqa: ANN401 (any value of a configuration)
    """Return the value of a setting, or the chosen option of a config group."""
    value = OmegaConf.select(job.config, key)
    if isinstance(value, DictConfig):
        return dict(map(_split_override, job.overrides)).get(key, "")
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
