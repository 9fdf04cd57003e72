from pathlib import Path

from helpers.commands import Compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from pneumo.training.run import run


def test_run_can_be_called_without_hydra(compose_run: Compose, tmp_path: Path) -> None:
    cfg = compose_run("trainer.max_epochs=1")
    OmegaConf.resolve(cfg)  # cfg.choices needs Hydra
    HydraConfig.instance().cfg = None
    assert run(cfg)["status"] == "done"
    assert (tmp_path / "run" / "results.json").is_file()
