import pytest
from helpers.commands import ROOT, Compose
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from pneumo.config.invocation import hydra_settings, is_single_run, is_sweep_job


def test_without_hydra_main_there_are_no_settings_and_no_sweep() -> None:
    assert hydra_settings() is None
    assert not is_sweep_job()
    assert not is_single_run()


@pytest.mark.parametrize(
    ("config", "mode", "expected"),
    [("sweep", "MULTIRUN", True), ("sweep", "RUN", False), ("train", "MULTIRUN", False), ("train", "RUN", False)],
)
def test_only_multirun_jobs_of_sweep_py_are_sweep_jobs(
    config: str, mode: str, expected: bool, compose_run: Compose
) -> None:
    compose_run(f"hydra.mode={mode}", config=config)
    assert is_sweep_job() == expected
    assert is_single_run() == (mode == "RUN")


def test_a_job_of_a_custom_sweep_configuration_is_a_sweep_job() -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("sweep", overrides=["hydra.mode=MULTIRUN"], return_hydra_config=True)
    cfg.hydra.job.config_name = "mine"
    HydraConfig.instance().set_config(cfg)
    try:
        assert is_sweep_job()
    finally:
        HydraConfig.instance().cfg = None
