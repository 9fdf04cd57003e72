import subprocess
import sys

import pytest
from helpers.commands import Compose
from omegaconf import DictConfig, OmegaConf

from pneumo.config.resolvers import run_dir, run_name
from pneumo.errors import ConfigError
from pneumo.training.components import build


@pytest.mark.parametrize(
    ("checkpoint", "folder"),
    [(None, "fresh"), ("runs/a/checkpoints/last.ckpt", "runs/a"), ("elsewhere/last.ckpt", "fresh")],
)
def test_a_resumed_run_stays_in_its_folder(checkpoint: str | None, folder: str) -> None:
    assert run_dir(checkpoint, "fresh") == folder


def test_only_a_call_registers_the_resolvers_and_it_may_be_repeated() -> None:
    code = "import pneumo.config.console, pneumo.config.resolvers as resolvers\nfrom omegaconf import OmegaConf\n"
    show = "print([OmegaConf.has_resolver(name) for name in ('run_dir', 'run_name', 'gpu_here', 'monitor_mode')])\n"
    code += show + "resolvers.register_resolvers()\n" * 2 + show
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[False, False, False, False]", "[True, True, True, True]"]


def test_building_a_run_registers_missing_resolvers(compose_run: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_mode(cfg: DictConfig) -> None:
        raise ConfigError(cfg.callbacks.best.mode)

    cfg = compose_run()
    OmegaConf.clear_resolver("monitor_mode")
    monkeypatch.setattr("pneumo.training.components.check_config", read_mode)
    with pytest.raises(ConfigError, match=r"^min$"):
        build(cfg)


@pytest.mark.parametrize(("job", "name"), [(True, "a-lr0.1"), (False, "a")])
def test_a_job_of_a_sweep_has_the_name_of_its_folder(job: bool, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pneumo.config.resolvers.is_sweep_job", lambda: job)
    assert run_name("outputs/sweep/rates/a-lr0.1", "a") == name
