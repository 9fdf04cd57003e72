from pathlib import Path

from helpers.commands import Compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from pneumo.training.run import run


def test_a_run_that_python_calls_needs_no_hydra(compose_run: Compose, tmp_path: Path) -> None:
    cfg = compose_run("trainer.max_epochs=1")
    OmegaConf.resolve(cfg)  # the names of the choices are Hydra's
    HydraConfig.instance().cfg = None
    assert run(cfg)["status"] == "done"
    assert (tmp_path / "run" / "results.json").is_file()
