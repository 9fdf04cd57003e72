"""Hydra's settings for this process, and whether the process runs a job of a sweep."""

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

SWEEPER = "hydra_plugins.pneumo_sweepers.PneumoSweeper"  # as in conf/hydra/sweeper/


def hydra_settings() -> HydraConf | None:
    """Return Hydra's settings for this process; None if Python code starts a run without `hydra.main`."""
    return HydraConfig.get() if HydraConfig.initialized() else None


def is_single_run() -> bool:
    """Return whether `hydra.main` started this process for one job, not for several."""
    settings = hydra_settings()
    return settings is not None and settings.mode == RunMode.RUN


def is_sweep_job() -> bool:
    """Return whether this process runs a job of sweep.py, which the same command resumes.

    `python train.py -m` does not resume, and neither does a single job of sweep.py (`hydra.mode=RUN`).
    """
    settings = hydra_settings()
    return settings is not None and settings.mode == RunMode.MULTIRUN and settings.sweeper._target_ == SWEEPER
