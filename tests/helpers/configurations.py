"""Configurations of runs on small phantoms, composed in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from helpers.commands import ROOT, Compose
from pneumo.config.resolvers import register_resolvers


@contextmanager
def run_composer(output_dir: Path, phantoms: Path) -> Iterator[Compose]:
    """Yield a function that composes the configuration of a run on small phantoms in a folder of `output_dir`."""
    register_resolvers()

    def compose_run(*overrides: str, folder: str = "run", config: str = "train") -> DictConfig:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            fixed = [f"data.root={phantoms}", f"paths.output_dir={output_dir}", f"paths.run_dir={output_dir / folder}"]
            quick = ["data.image_size=32", "data.batch_size=16", "data.num_workers=0", "trainer=cpu", "figures=false"]
            cfg = compose(config, overrides=[*fixed, *quick, *overrides], return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])  # as Hydra passes it to a job

    import torch  # here, so that xdist's controller does not import PyTorch

    yield compose_run
    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None
    torch.set_float32_matmul_precision("highest")
