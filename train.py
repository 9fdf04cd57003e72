"""Training and testing of one configuration: python train.py model=resnext optimizer=adagrad."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from pneumo.config.console import user_errors
from pneumo.config.overrides import command_line


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> None:
    """Train and test the composed configuration."""
    with user_errors():
        from pneumo.training.run import run

        run(cfg)


if __name__ == "__main__":
    with command_line(Path(__file__)):
        main()
