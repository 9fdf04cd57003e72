"""OmegaConf resolvers for conf/, such as `${gpu_here:}`."""

from pathlib import Path

from omegaconf import OmegaConf

from pneumo.config.invocation import is_sweep_job
from pneumo.config.relations import monitor_mode


def register_resolvers() -> None:
    """Register the resolvers that conf/ requires in this process; repeated calls are allowed."""
    for resolver in (run_dir, run_name, gpu_here, monitor_mode):
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)


def run_dir(ckpt_path: str | None, fresh: str) -> str:
    """Return the run folder: that of the checkpoint to resume from, else a new one."""
    if ckpt_path is None:
        return fresh
    checkpoints = Path(ckpt_path).parent
    return str(checkpoints.parent) if checkpoints.name == "checkpoints" else fresh


def run_name(folder: str, name: str) -> str:
    """Return the name of a run in experiment trackers: that of its folder in a sweep, else the given one."""
    return Path(folder).name if is_sweep_job() else name


def gpu_here() -> int:
    """Return 1 if this machine has an NVIDIA GPU, else 0; PyTorch is not required."""
    return int(any(Path("/dev").glob("nvidia[0-9]*")))
