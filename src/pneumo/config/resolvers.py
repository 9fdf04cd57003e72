"""Resolvers of OmegaConf that conf/ uses, such as `${gpu_here:}`."""

from pathlib import Path

from omegaconf import OmegaConf

from pneumo.config.relations import monitor_mode


def register_resolvers() -> None:
    """Register the resolvers in this process, as often as it is called; without them no value of conf/ can be read."""
    for resolver in (run_dir, gpu_here, monitor_mode):
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)


def run_dir(ckpt_path: str | None, fresh: str) -> str:
    """Return a run's folder: a fresh one, or that of the checkpoint which the run goes on from."""
    if ckpt_path is None:
        return fresh
    checkpoints = Path(ckpt_path).parent
    return str(checkpoints.parent) if checkpoints.name == "checkpoints" else fresh


def gpu_here() -> int:
    """Return 1 if this machine has an Nvidia GPU, else 0, without a need for PyTorch."""
    return int(any(Path("/dev").glob("nvidia[0-9]*")))
