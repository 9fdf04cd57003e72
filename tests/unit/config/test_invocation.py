import pytest
from helpers.commands import ROOT, Compose
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from pneumo.config.invocation import hydra_settings, is_sweep_job


def test_without_hydra_there_are_no_settings_and_no_sweep() -> None:
    assert hydra_settings() is None
    assert not is_sweep_job()


@pytest.mark.parametrize(
    ("config", "mode", "expected"),
    [("sweep", "MULTIRUN", True), ("sweep", "RUN", False), ("train", "MULTIRUN", False), ("train", "RUN", False)],
)
def test_only_a_job_of_a_sweep_is_one(config: str, mode: str, expected: bool, compose_run: Compose) -> None:
    compose_run(f"hydra.mode={mode}", config=config)
    assert is_sweep_job() == expected


def test_a_sweep_by_a_configuration_of_ones_own_is_one_too() -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("sweep", overrides=["hydra.mode=MULTIRUN"], return_hydra_config=True)
    cfg.hydra.job.config_name = "mine"
    HydraConfig.instance().set_config(cfg)
    try:
        assert is_sweep_job()
    finally:
        HydraConfig.instance().cfg = None
