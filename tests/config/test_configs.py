"""Composition of every file in conf/ and training with every pair of model and optimizer; new files are included."""

from functools import cache
from pathlib import Path

import pytest
from helpers.commands import ROOT, Compose
from omegaconf import OmegaConf

from pneumo.config.checks import check_config
from pneumo.config.fingerprints import config_hash
from pneumo.models.backbones import build_backbone as build_network
from pneumo.training.components import build


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


GROUPS = [path.name for path in (ROOT / "conf").iterdir() if path.is_dir() and path.name != "hydra"]


def test_the_options_of_the_study_exist() -> None:
    assert set(names("model")) >= {"xraychestnet", "vgg16", "resnext", "googlenet", "efficientnet_lite0", "timm"}
    assert set(names("optimizer")) >= {"sgd", "adam", "adagrad"}
    assert set(names("trainer")) >= {"default", "cpu", "gpu", "ddp", "smoke"}
    assert set(names("data")) >= {"chest_xray", "synthetic"}
    assert set(names("augment")) >= {"none", "light"}


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in sorted(GROUPS) for name in names(group)])
def test_every_file_composes_and_passes_the_checks(group: str, name: str, compose_run: Compose) -> None:
    needed = {"joblib": "joblib", "ray": "ray", "slurm": "submitit"}.get(name) if group == "launcher" else None
    if needed:
        pytest.importorskip(f"hydra_plugins.hydra_{needed}_launcher")
    cfg = compose_run(f"{group}={name}", config="sweep" if group in ("launcher", "sweep") else "train")
    OmegaConf.resolve(cfg)
    check_config(cfg)
    assert config_hash(cfg)


def test_a_custom_data_set_or_network_keeps_its_settings(compose_run: Compose, tmp_path: Path) -> None:
    for group, text in (
        ("data", "defaults: [chest_xray, _self_]\nsplit: patient\n"),
        ("model", "defaults: [/backbone@_here_, _self_]\narchitecture: timm/resnet18\nthreshold: 0.3\n"),
    ):
        (tmp_path / group).mkdir()
        (tmp_path / group / "mine.yaml").write_text(text)
    for experiment in ("study", "robust", "search_optuna"):
        config = "sweep" if experiment == "search_optuna" else "train"
        custom = (f"hydra.searchpath=[file://{tmp_path}]", "data=mine", "model=mine", f"experiment={experiment}")
        cfg = compose_run(*custom, config=config)
        assert (cfg.data.split, cfg.model.threshold) == ("patient", 0.3), experiment


@pytest.mark.parametrize("model", names("model"))
def test_every_optimizer_fits_a_batch_of_every_model(
    model: str, compose_run: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pneumo.models.classifier.build_backbone", cache(build_network))  # once for all optimizers
    for optimizer in names("optimizer"):
        cfg = compose_run(f"model={model}", f"optimizer={optimizer}", "model.weights=null", "+trainer.fast_dev_run=1")
        components = build(cfg)
        datamodule, classifier, trainer = components.datamodule, components.classifier, components.trainer
        before = classifier.head.bias.detach().clone()
        trainer.fit(classifier, datamodule=datamodule)
        assert trainer.global_step == 1, optimizer
        assert not classifier.head.bias.equal(before), optimizer


def test_the_hash_depends_only_on_settings_that_affect_results(compose_run: Compose, tmp_path: Path) -> None:
    base = config_hash(compose_run())
    assert config_hash(compose_run("data.num_workers=3", f"paths.cache_dir={tmp_path}", folder="elsewhere")) == base
    fast = ("data.cache=false", "features.compile=true", "features.batch_size=4", "compile=true")
    assert config_hash(compose_run(*fast)) == base
    assert config_hash(compose_run("features.views=2")) != base
    assert config_hash(compose_run("sweep.name=other", config="sweep")) == base
    assert config_hash(compose_run("optimizer.lr=0.5")) != base
    assert config_hash(compose_run("seed=1")) != base
    assert config_hash(compose_run("callbacks.best.monitor=val/auroc")) != base
    assert config_hash(compose_run("~callbacks.progress")) == base
