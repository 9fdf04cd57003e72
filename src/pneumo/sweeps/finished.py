"""Which jobs of a sweep have finished, and may count as this sweep's."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from pneumo.data.index import data_hash, default_root, index_radiographs, locate
from pneumo.errors import ConfigError
from pneumo.evaluation.results import read_results
from pneumo.fingerprints import recorded_hashes
from pneumo.sweeps.plan import Job


def finished_jobs(jobs: Sequence[Job]) -> set[str]:
    """Return the names of the jobs that need not be run again.

    Raises:
        ConfigError: One of that name has finished, but with another configuration or other data.
    """
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
    if not str(data._target_).startswith("pneumo.data.") or locate(root) is None:
        return otherwise
    classes = [str(name) for name in data.classes]
    key = (root, *classes)
    if key not in known:
        known[key] = data_hash(index_radiographs(root, classes))
    return known[key] or otherwise
