"""Grid sweeps over every combination of the listed values."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

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
from pneumo.errors import ConfigError
from pneumo.runs.results import read_results
from pneumo.sweeps.plan import Job, make_columns, plan_jobs, varied_keys
from pneumo.sweeps.session import open_session, resolve_sweep_dir

MOST_JOBS = 10_000  # of one sweep: composing their configurations alone takes minutes
# Data modules whose images are indexed by `index_radiographs`, by their stable names.
_INDEXED = ("pneumo.data.datamodule.ChestXrayDataModule", "pneumo.data.synthetic.SyntheticDataModule")
_SHARED = ("sweep.", "launcher", "hydra", "paths.", "ckpt_path")  # settings of the sweep as a whole


def sweep_grid(
    context: HydraContext, task_function: TaskFunction, config: DictConfig, overrides: Sequence[str]
) -> None:
    """Run the jobs that have not finished, write the leaderboard, and exit with status 1 unless all have."""
    check_sweep(config)
    resolve_sweep_dir(config)
    planned = plan_jobs(context.config_loader, config, combinations(context.config_loader, overrides))
    refuse_processes(planned)
    launcher = Plugins.instance().instantiate_launcher(context, task_function, config)
    with open_session(config, launcher) as session:
        finished = session.own_jobs(planned) if config.sweep.overwrite else finished_jobs(planned)
        session.record(config)
        complete = False
        try:
            columns = make_columns(varied_keys([job.overrides for job in planned]), planned)
            session.launch([job for job in planned if job.name not in finished], columns)
        finally:
            complete = session.sum_up(planned, finished)
    if not complete:
        raise SystemExit(1)


def combinations(loader: ConfigLoader, overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of each job; of several overrides for one key, the last counts."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # as Hydra's own sweeper combines them

    parsed = parse_overrides(loader, overrides)
    check_values(parsed, combined=True)
    (jobs,) = BasicSweeper.split_arguments([*parsed.values()], None)
    return jobs


def parse_overrides(loader: ConfigLoader | None, overrides: Sequence[str]) -> dict[str, Override]:
    """Parse overrides by their keys; of several for one key, the last counts."""
    parsed = OverridesParser.create(loader).parse_overrides(list(overrides))
    return {override.get_key_element(): override for override in parsed}


def check_values(overrides: Mapping[str, Override], combined: bool) -> None:
    """Raise a ConfigError if a setting cannot have several values, or if there would be absurdly many jobs.

    Unless their combinations are jobs, there may be intervals, which have no end of values.
    """
    counts: dict[str, int] = {}
    for key, override in overrides.items():
        if not override.is_sweep_override():
            continue
        line = str(override.input_line)
        if key.lstrip("+").startswith(_SHARED):
            raise ConfigError(
                f"{line} must have one value, since all jobs of a sweep share it; one with a comma is quoted: "
                f"{quote_override(line)}"
            )
        if os.path.lexists(os.path.expanduser(line.partition("=")[2])):
            raise ConfigError(
                f"{line} has the values of several jobs, and is one path. Quote it: {quote_override(line)}"
            )
        if override.is_discrete_sweep():
            counts[key] = _count_values(override)
        elif combined:
            raise ConfigError(
                f"{line} has no end of values: list some, as in optimizer.lr=0.001,0.01, or have Optuna choose among "
                "them with sweep.trials=20."
            )
    if combined and (total := math.prod(counts.values())) > MOST_JOBS:
        raise ConfigError(
            f"This sweep has {total:,} jobs, the combinations of {', '.join(counts)}, and at most {MOST_JOBS:,} can be "
            "run: list fewer values, or have Optuna choose among them with sweep.trials=20."
        )


def _count_values(override: Override) -> int:
    """Count an override's values without making them, of which a range may have billions."""
    value, line = override.value(), override.input_line
    if isinstance(value, RangeSweep):
        start, stop, step = (value.start, value.stop, value.step)
        if start is None or stop is None or not step or not all(map(math.isfinite, (start, stop, step))):
            raise ConfigError(f"{line} must have finite bounds and a step other than 0.")
        count = max(0, math.ceil((stop - start) / step))
    else:
        count = sum(1 for _ in override.sweep_string_iterator())
    if count == 0:
        raise ConfigError(f"{line} has no values, so there is nothing to run: list some.")
    if count > MOST_JOBS:
        raise ConfigError(f"{line} has {count:,} values, and at most {MOST_JOBS:,} can be tried.")
    return count


def refuse_processes(jobs: Sequence[Job]) -> None:
    """Raise a ConfigError if a job wants several processes: Lightning starts them by repeating the command line."""
    for job in jobs:
        devices = job.config.trainer.devices
        one = len(devices) == 1 if OmegaConf.is_list(devices) else devices in (1, "1")
        if "ddp" in str(job.config.trainer.get("strategy")) or not one:
            raise ConfigError(
                f"{job.name} asks for several processes (trainer.devices={devices}), and a job of a "
                "sweep has one: spread the jobs over devices with launcher=joblib, ray or slurm, or give a single run "
                "several devices with `python train.py trainer=ddp`."
            )


def finished_jobs(jobs: Sequence[Job]) -> set[str]:
    """Return the jobs that have finished, by name; raise a ConfigError if one did with other settings or data."""
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
            f"{jobs[0].folder.parent} holds finished runs that are not those of this sweep: {', '.join(other)}. What "
            "has finished is kept, so nothing was started: take another name with sweep.name=NAME, or run all of this "
            "sweep's jobs anew in the place of what is there with sweep.overwrite=true."
        )
    return set(finished)


def _data_hash(cfg: DictConfig, known: dict[tuple[object, ...], str | None], otherwise: str) -> str:
    """Return the hash of a job's data as its run would, or `otherwise` if they are missing or not pneumo's to index."""
    data = cfg.data
    root = default_root() if data.root is None else Path(data.root)
    if stable_target(str(data._target_)) not in _INDEXED or locate(root) is None:
        return otherwise
    classes = [str(name) for name in data.classes]
    key = (root, *classes)
    if key not in known:
        known[key] = data_hash(index_radiographs(root, classes))
    return known[key] or otherwise
