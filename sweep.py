"""Training and testing of many configurations, by default the study's twelve: python sweep.py -m."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from pneumo.config.console import user_errors
from pneumo.config.overrides import command_line


@hydra.main(version_base="1.3", config_path="conf", config_name="sweep")
def main(cfg: DictConfig) -> None:
    """Run one job of the sweep."""
    with user_errors():
        from pneumo.sweeps.job import run_job

        run_job(cfg)


if __name__ == "__main__":
    with command_line(Path(__file__)):
        main()
