import pytest
import yaml
from helpers.commands import ROOT
from omegaconf import OmegaConf

from pneumo.runs.run_names import base_name, is_trial_name, parse_setting, trial_name
from pneumo.sweeps.plan import job_name


def test_the_configuration_uses_the_same_folder_names() -> None:
    subdir = yaml.safe_load((ROOT / "conf" / "sweep.yaml").read_text())["hydra"]["sweep"]["subdir"]
    folder = yaml.safe_load((ROOT / "conf" / "train.yaml").read_text())["paths"]["fresh_dir"]
    assert subdir in folder.split("/")
    values = {"choices": {"model": "resnext", "optimizer": "sgd"}, "seed": 3}
    assert OmegaConf.create({**values, "name": subdir}).name == base_name("resnext", "sgd", 3) == "resnext-sgd-s3"


@pytest.mark.parametrize(
    ("values", "setting"),
    [
        ({}, ""),
        ({"seed": "3"}, ""),
        ({"data.fold": "2"}, ""),
        ({"optimizer.lr": "0.01", "data.fold": "2", "augment": "light"}, "lr0.01-light"),
    ],
)
def test_the_setting_of_a_job_is_parsed_from_its_name(values: dict[str, str], setting: str) -> None:
    name = job_name(base_name("resnext", "sgd", 3), values, list(values))
    assert parse_setting(name, "resnext", "sgd", 3) == setting


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("resnext-sgd-s3/2026-01-02_10-00-00", "2026-01-02_10-00-00"),
        ("lr0.01-s3-fold1", "lr0.01"),
        ("resnext-sgd-s31", "resnext-sgd-s31"),
        ("trial-007", "trial-007"),
    ],
)
def test_other_names_are_settings_without_seed_and_fold(name: str, setting: str) -> None:
    assert parse_setting(name, "resnext", "sgd", 3) == setting


def test_trial_names_are_recognised() -> None:
    assert (trial_name(7), trial_name(1234)) == ("trial-007", "trial-1234")
    assert is_trial_name(trial_name(7))
    assert not is_trial_name(base_name("resnext", "sgd", 0))
