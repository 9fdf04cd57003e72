"""How Hydra started this process: its own settings, and whether the process runs a job of a sweep."""

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

SWEEPER = "hydra_plugins.pneumo_sweepers.PneumoSweeper"  # as conf/hydra/sweeper/ names it


def hydra_settings() -> HydraConf | None:
    """Return Hydra's own settings of this process; None where Python code calls a run without Hydra's main."""
    return HydraConfig.get() if HydraConfig.initialized() else None


def is_sweep_job() -> bool:
    """Return whether this process runs a job of sweep.py, which the same command resumes.

    `python train.py -m` resumes nothing, nor does a job of sweep.py that is run alone.
    """
    settings = hydra_settings()
    return settings is not None and settings.mode == RunMode.MULTIRUN and settings.sweeper._target_ == SWEEPER
