"""Grid sweeps over every combination of the listed values."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from pneumo.common.text import quote_override
from pneumo.config.checks import check_sweep
from pneumo.config.fingerprints import recorded_hashes, stable_target
from pneumo.data.index import data_hash, default_root, index_radiographs, locate
from pneumo.data.table_index import TABLE_SETTINGS, index_table, table_source
from pneumo.errors import ConfigError
from pneumo.runs.results import read_results
from pneumo.sweeps.plan import Job, make_columns, plan_jobs, varied_keys
from pneumo.sweeps.session import open_session, resolve_sweep_dir

MAX_JOBS = 10_000  # per sweep: composing more configurations would take minutes
# Stable names of data modules whose images are indexed by `index_radiographs`
_INDEXED = ("pneumo.data.datamodule.ChestXrayDataModule", "pneumo.data.synthetic.SyntheticDataModule")
_TABLE = "pneumo.data.table_datamodule.TableDataModule"
_SHARED = ("sweep.", "launcher", "hydra", "paths.", "ckpt_path")  # prefixes of settings that all jobs share


def sweep_grid(
    context: HydraContext, task_function: TaskFunction, config: DictConfig, overrides: Sequence[str]
) -> None:
    """Run the unfinished jobs and write the leaderboard; exit with status 1 unless all jobs have finished."""
    check_sweep(config)
    resolve_sweep_dir(config)
    planned = plan_jobs(context.config_loader, config, combinations(context.config_loader, overrides))
    check_single_process(planned)
    launcher = Plugins.instance().instantiate_launcher(context, task_function, config)
    with open_session(config, launcher) as session:
        finished = session.finished_by_command(planned) if config.sweep.overwrite else finished_jobs(planned)
        session.record(config)
        complete = False
        try:
            columns = make_columns(varied_keys([job.overrides for job in planned]), planned)
            session.launch([job for job in planned if job.name not in finished], columns)
        finally:
            complete = session.summarize(planned, finished)
    if not complete:
        raise SystemExit(1)


def combinations(loader: ConfigLoader, overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of each job; the last override of a key takes precedence."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # combines values like Hydra's own sweeper

    parsed = parse_overrides(loader, overrides)
    check_values(parsed, combined=True)
    (jobs,) = BasicSweeper.split_arguments([*parsed.values()], None)
    return jobs


def parse_overrides(loader: ConfigLoader | None, overrides: Sequence[str]) -> dict[str, Override]:
    """Parse overrides into a dictionary by key; the last override of a key takes precedence."""
    parsed = OverridesParser.create(loader).parse_overrides(list(overrides))
    return {override.get_key_element(): override for override in parsed}


def check_values(overrides: Mapping[str, Override], combined: bool) -> None:
    """Raise a ConfigError if a setting cannot have several values, or if there are too many jobs.

    Args:
        overrides: Parsed overrides by key.
        combined: Whether each combination of values is a job. If so, intervals are invalid, since they are infinite.
    """
    counts: dict[str, int] = {}
    for key, override in overrides.items():
        if not override.is_sweep_override():
            continue
        line = str(override.input_line)
        if key.lstrip("+").startswith(_SHARED):
            raise ConfigError(
                f"{line} must have one value, since all jobs of a sweep share it. Quote a value that contains a "
                f"comma: {quote_override(line)}"
            )
        if os.path.lexists(os.path.expanduser(line.partition("=")[2])):
            raise ConfigError(
                f"{line} would be split into several values, but is an existing path. Quote it: {quote_override(line)}"
            )
        if override.is_discrete_sweep():
            counts[key] = _count_values(override)
        elif combined:
            raise ConfigError(
                f"{line} has infinitely many values. List values, as in optimizer.lr=0.001,0.01, or search the "
                "interval with Optuna: sweep.trials=20."
            )
    if combined and (total := math.prod(counts.values())) > MAX_JOBS:
        raise ConfigError(
            f"This sweep has {total:,} jobs, all combinations of {', '.join(counts)}, but at most {MAX_JOBS:,} are "
            "allowed. List fewer values, or search them with Optuna: sweep.trials=20."
        )


def _count_values(override: Override) -> int:
    """Return the number of values of an override without generating them: a range may have billions."""
    value, line = override.value(), override.input_line
    if isinstance(value, RangeSweep):
        start, stop, step = (value.start, value.stop, value.step)
        if start is None or stop is None or not step or not all(map(math.isfinite, (start, stop, step))):
            raise ConfigError(f"{line} must have finite bounds and a step other than 0.")
        count = max(0, math.ceil((stop - start) / step))
    else:
        count = sum(1 for _ in override.sweep_string_iterator())
    if count == 0:
        raise ConfigError(f"{line} has no values, so there is nothing to run. List at least one.")
    if count > MAX_JOBS:
        raise ConfigError(f"{line} has {count:,} values, but at most {MAX_JOBS:,} are allowed. List fewer values.")
    return count


def check_single_process(jobs: Sequence[Job]) -> None:
    """Raise a ConfigError if a job uses several processes: Lightning would run the whole sweep command in each."""
    for job in jobs:
        devices = job.config.trainer.devices
        single = len(devices) == 1 if OmegaConf.is_list(devices) else devices in (1, "1")
        if "ddp" in str(job.config.trainer.get("strategy")) or not single:
            raise ConfigError(
                f"{job.name} requires several processes (trainer.devices={devices}), but a job of a sweep must use "
                "one. Distribute the jobs with launcher=joblib, ray or slurm, or start a single run on several devices "
                "with `python train.py trainer=ddp`."
            )


def finished_jobs(jobs: Sequence[Job]) -> set[str]:
    """Return the names of finished jobs; raise a ConfigError if one has other settings or data than planned."""
    finished = {job.name: results for job in jobs if (results := read_results(job.folder))}
    hashes: dict[tuple[object, ...], str | None] = {}
    other = []
    for job in jobs:
        if results := finished.get(job.name):
            if results["config_hash"] not in recorded_hashes(job.config):
                other.append(f"{job.name} (another configuration)")
            elif results["data_hash"] != _data_hash(job.config, hashes, str(results["data_hash"])):
                other.append(f"{job.name} (other data)")
    if other:
        raise ConfigError(
            f"{jobs[0].folder.parent} contains finished runs that do not belong to this sweep: {', '.join(other)}. "
            "Nothing was started. Use another folder with sweep.name=NAME, or rerun all jobs of this sweep and "
            "overwrite these runs with sweep.overwrite=true."
        )
    return set(finished)


def _data_hash(cfg: DictConfig, known: dict[tuple[object, ...], str | None], otherwise: str) -> str:
    """Return the hash of a job's data; return `otherwise` if the data are missing or have a custom layout."""
    data = cfg.data
    if stable_target(str(data._target_)) == _TABLE:
        return _table_hash(data, known, otherwise)
    root = default_root() if data.root is None else Path(data.root)
    if stable_target(str(data._target_)) not in _INDEXED or locate(root) is None:
        return otherwise
    classes = [str(name) for name in data.classes]
    key = (root, *classes)
    if key not in known:
        known[key] = data_hash(index_radiographs(root, classes))
    return known[key] or otherwise


def _table_hash(data: DictConfig, known: dict[tuple[object, ...], str | None], otherwise: str) -> str:
    """Return the hash of a table's data; return `otherwise` if the table is missing."""
    if data.table is None or not Path(data.table).is_file():
        return otherwise
    settings: Any = OmegaConf.to_container(data)
    source = table_source(*(settings[name] for name in TABLE_SETTINGS))
    classes = [str(name) for name in data.classes]
    key = (repr(source), *classes)
    if key not in known:
        known[key] = index_table(source, classes).data_hash
    return known[key] or otherwise
