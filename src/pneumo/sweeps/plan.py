"""What a sweep is going to run, worked out before anything runs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from pneumo.config import check_config, list_overrides
from pneumo.errors import ConfigError
from pneumo.sweeps.naming import job_name


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        name: Of its folder, in the sweep's.
        folder: Where it writes.
        overrides: What tells it from the configuration that all share.
        config: What it runs, resolved.
    """

    name: str
    folder: Path
    overrides: tuple[str, ...]
    config: DictConfig


def plan_jobs(
    loader: ConfigLoader, config: DictConfig, jobs: Sequence[Sequence[str]], names: Sequence[str] | None = None
) -> list[Job]:
    """Compose each job's configuration, check it, and name its folder; raise a ConfigError if two jobs share one.

    Args:
        loader: Composes.
        config: The sweep's own configuration.
        jobs: The overrides of each job.
        names: Of their folders; None makes them from `hydra.sweep.subdir` and, unless the user has set that, from
            what else differs.
    """
    values = [dict(map(split_override, job)) for job in jobs]
    given = list_overrides(config.hydra.overrides.hydra)
    own_names = any(override.startswith("hydra.sweep.subdir=") for override in given)
    varied = [] if own_names else varied_keys(jobs)
    planned = []
    for number, overrides in enumerate(jobs):
        cfg = loader.load_sweep_config(config, list(overrides))
        with read_write(cfg.hydra.job), open_dict(cfg.hydra.job):
            cfg.hydra.job.num = cfg.hydra.job.id = number  # as Hydra would, for names that ask for them
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
    with read_write(cfg.hydra), open_dict(cfg.hydra):
        cfg.hydra.runtime.output_dir = str(folder)
    HydraConfig.instance().set_config(cfg)  # which keeps a copy, without the folder so far
    task = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    check_config(task)  # which explains references that cannot be resolved
    OmegaConf.resolve(task)  # while it is clear which job's choices are meant
    return Job(name, folder, tuple(overrides), task)


def varied_keys(jobs: Sequence[Sequence[str]]) -> list[str]:
    """Return the keys whose values differ between jobs, given by their overrides, in their order."""
    values = [dict(map(split_override, job)) for job in jobs]
    keys = dict.fromkeys(key for job in values for key in job)
    return [key for key in keys if len({job.get(key) for job in values}) > 1]


def split_override(override: str) -> tuple[str, str]:
    """Return the key and the value of an override."""
    key, _, value = override.partition("=")
    return key.lstrip("+"), value
