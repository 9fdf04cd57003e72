"""Results and checkpoints in which earlier versions recorded `optimizer.fused` as null."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.commands import Compose
from helpers.run_files import write_run
from omegaconf import DictConfig

from pneumo.config.fingerprints import config_hash, recorded_hashes, relevant_config, settings_hash
from pneumo.errors import ConfigError
from pneumo.models.checkpoint_reader import read_checkpoint
from pneumo.runs.collection import collect
from pneumo.runs.results import check_overwrite
from pneumo.runs.status import Status, write_status
from pneumo.sweeps.grid import finished_jobs
from pneumo.sweeps.job import is_done_by
from pneumo.sweeps.plan import Job
from pneumo.training.resumption import check_settings

CLIP = "+trainer.gradient_clip_val=1"


@pytest.fixture
def forms(compose_run: Compose) -> tuple[DictConfig, DictConfig]:
    """A configuration and the form in which an earlier version recorded it on a GPU."""
    return compose_run(CLIP), compose_run(CLIP, "optimizer.fused=null")


def test_only_clipping_in_mixed_precision_has_an_earlier_form(
    forms: tuple[DictConfig, DictConfig], compose_run: Compose
) -> None:
    cfg, earlier = forms
    assert recorded_hashes(cfg) == {config_hash(cfg), config_hash(earlier)}
    assert recorded_hashes(earlier) == {config_hash(earlier)}
    for overrides in ((), (CLIP, "trainer.precision=32-true"), (CLIP, "optimizer=adagrad")):
        other = compose_run(*overrides)
        assert recorded_hashes(other) == {config_hash(other)}


@pytest.mark.parametrize(
    ("override", "default"),
    [
        ("augment.noise=0.1", "augment.noise=0.0"),
        ("augment.gamma=1", "augment.gamma=0"),
        ("augment.border=0.1", "augment.border=0"),
        ("data.aspect=pad", "data.aspect=squeeze"),
        ("data.histogram=equalize", "data.histogram=none"),
    ],
)
def test_settings_added_later_change_hashes_only_if_they_are_set(
    override: str, default: str, compose_run: Compose
) -> None:
    cfg, name = compose_run(), override.partition("=")[0]
    assert name not in relevant_config(cfg)
    assert config_hash(compose_run(default)) == config_hash(cfg) != config_hash(compose_run(override))
    assert name in relevant_config(compose_run(override))


def test_earlier_results_are_recognised(forms: tuple[DictConfig, DictConfig], tmp_path: Path) -> None:
    cfg, earlier = forms
    folder = tmp_path / "sweep" / "xraychestnet-sgd-s0"
    hashes: dict[str, Any] = {"config_hash": config_hash(earlier), "settings_hash": settings_hash(earlier)}
    write_run(folder, "xraychestnet", "sgd", 0, wrong=1, data_hash="", **hashes)
    write_status(folder, Status("now", "done", "", "", "xraychestnet", "sgd", 0, "study", settings_hash(cfg)))
    check_overwrite(folder, recorded_hashes(cfg), "")
    cfg.data.root = str(tmp_path / "missing")  # so that the data are not compared
    assert finished_jobs([Job(folder.name, folder, (), cfg)]) == {folder.name}
    assert is_done_by(folder, "now", recorded_hashes(cfg))
    assert [run.settings_hash for run in collect([tmp_path / "sweep"])] == [settings_hash(cfg)]
    cfg.optimizer.lr = 0.5
    with pytest.raises(ConfigError, match="would be lost"):
        check_overwrite(folder, recorded_hashes(cfg), "")
    with pytest.raises(ConfigError, match="another configuration"):
        finished_jobs([Job(folder.name, folder, (), cfg)])


def test_a_search_uses_results_of_earlier_versions(forms: tuple[DictConfig, DictConfig], tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    from pneumo.sweeps.search import _record_objectives
    from pneumo.sweeps.trials import Space, Trials

    cfg, earlier = forms
    write_run(
        tmp_path / "trial-000", "xraychestnet", "sgd", 0, wrong=1, config_hash=config_hash(earlier), val_loss=0.25
    )
    trials = Trials(optuna.create_study(), Space({}, []), "optuna.db")
    trials.study.ask()
    session: Any = SimpleNamespace(outcome=lambda *_, **__: ("done", ""))
    job = Job("trial-000", tmp_path / "trial-000", (), cfg)
    sweep = DictConfig({"objective": "val_loss", "fail_fast": False})
    assert _record_objectives(trials, session, trials.read(), [job], sweep)
    assert trials.study.best_value == 0.25


def test_a_run_resumes_from_a_checkpoint_of_an_earlier_version(
    forms: tuple[DictConfig, DictConfig], tmp_path: Path
) -> None:
    cfg, earlier = forms
    path = tmp_path / "last.ckpt"
    (tmp_path / "best.ckpt").touch()
    torch.save({"hyper_parameters": {}, "config": {**relevant_config(earlier), "data_hash": "a"}}, path)
    check_settings(read_checkpoint(path), path, tmp_path / "best.ckpt", {**relevant_config(cfg), "data_hash": "a"})
    with pytest.raises(ConfigError, match=r"with other settings: data_hash=a \(now b\)\."):  # fused does not differ
        check_settings(read_checkpoint(path), path, tmp_path / "best.ckpt", {**relevant_config(cfg), "data_hash": "b"})
