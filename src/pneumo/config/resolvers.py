"""OmegaConf resolvers for conf/, such as `${gpu_here:}`."""

from pathlib import Path

from omegaconf import OmegaConf

from pneumo.config.relations import monitor_mode


def register_resolvers() -> None:
    """Register the resolvers that conf/ requires in this process; repeated calls are allowed."""
    for resolver in (run_dir, gpu_here, monitor_mode):
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)


def run_dir(ckpt_path: str | None, fresh: str) -> str:
    """Return the run folder: that of the checkpoint to resume from, else a new one."""
    if ckpt_path is None:
        return fresh
    checkpoints = Path(ckpt_path).parent
    return str(checkpoints.parent) if checkpoints.name == "checkpoints" else fresh


def gpu_here() -> int:
    """Return 1 if this machine has an NVIDIA GPU, else 0; PyTorch is not required."""
    return int(any(Path("/dev").glob("nvidia[0-9]*")))
