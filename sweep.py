"""Train and test many configurations, by default the study's twelve: python sweep.py -m."""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from pneumo.config.console import require_launcher, user_errors
from pneumo.config.overrides import override_hints
from pneumo.config.resolvers import register_resolvers


@hydra.main(version_base="1.3", config_path="conf", config_name="sweep")
def main(cfg: DictConfig) -> None:
    """Run one job of the sweep."""
    with user_errors():
        from pneumo.sweeps.job import run_job

        run_job(cfg)


if __name__ == "__main__":
    require_launcher(sys.argv)
    register_resolvers()
    with override_hints(Path(__file__)):
        main()
