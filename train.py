"""Train one configuration and test it once: python train.py model=resnext optimizer=adagrad."""

import hydra
from omegaconf import DictConfig

from pneumo.entry import user_errors


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> None:
    """Run what the command line composed."""
    with user_errors():
        from pneumo.training import run

        run(cfg)


if __name__ == "__main__":
    main()
