import re

import pytest
from helpers.commands import Compose
from omegaconf import OmegaConf

from pneumo.config.checks import check_config
from pneumo.errors import ConfigError


@pytest.mark.parametrize(
    "override",
    [
        "optimizer.lr=abc",
        "optimizer.lr=0",
        "optimizer.lr=-1",
        "optimizer.lr=.inf",
        f"optimizer.lr={'9' * 400}",
        "optimizer.lr=null",
        "seed=-1",
        "seed=0.5",
        "seed=99999999999",
        "trainer.max_epochs=0",
        "data.image_size=0",
        "data.crop_pct=0.4",
        "data.crop_pct=1.1",
        "data.batch_size=many",
        "data.num_workers=-1",
        "data.val_fraction=0.9",
        "data.classes=[A]",
        "data.classes=[A,A]",
        "data.classes=A",
        "data.root=2024",
        "data.root=[old]",
        "data.classes=[NORMAL,'a\udcff']",
        "paths.output_dir=[old]",
        "ckpt_path=1",
        "model.threshold=2",
        "model.freeze=perhaps",
        "model.weights=true",
        "model.architecture=50",
        "model.head_path=[fc]",
        "trainer.limit_train_batches=0",
        "trainer.limit_val_batches=0.0",
        "trainer.limit_test_batches=1.5",
        "+trainer.check_val_every_n_epoch=2",
        "+trainer.val_check_interval=0.3",
        "decision.threshold=0.3",
        "loss=null",
        "decision=null",
        "fine_tuning=null",
    ],
)
def test_an_invalid_value_is_named_with_its_rule(override: str, compose_run: Compose) -> None:
    with pytest.raises(ConfigError, match=r"must be|true or false") as caught:
        check_config(compose_run(override))
    key = override.split("=")[0].lstrip("+")
    assert str(caught.value).startswith(f"{key}=")


def test_a_fold_is_rejected_without_a_kfold_split(compose_run: Compose) -> None:
    with pytest.raises(ConfigError, match=r"data\.fold=3 would have no effect"):
        check_config(compose_run("data.fold=3"))


@pytest.mark.parametrize(
    ("override", "suggestion"), [("+optimiser=adam", "optimizer"), ("+trainr.max_epochs=3", "trainer")]
)
def test_a_new_key_that_resembles_a_known_one_is_rejected(override: str, suggestion: str, compose_run: Compose) -> None:
    with pytest.raises(ConfigError, match=f"is not a setting.* {suggestion}"):
        check_config(compose_run(override))
    check_config(compose_run("+notes=first"))


def test_a_custom_key_is_allowed_if_only_hydra_refers_to_it(compose_run: Compose) -> None:
    cfg = compose_run("+mine=a", "hydra.job.name=${mine}")
    check_config(cfg)
    assert cfg.mine == "a"


def test_min_steps_is_rejected_if_nothing_stops_training_early(compose_run: Compose) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.min_steps=9 would have no effect"):
        check_config(compose_run("+trainer.min_steps=9"))
    with pytest.raises(ConfigError, match=r"trainer\.min_steps=9 .*trainer\.max_steps=2"):
        check_config(compose_run("+trainer.min_steps=9", "+trainer.max_steps=2"))
    stop = "{_target_:lightning.pytorch.callbacks.EarlyStopping,monitor:val/loss}"
    for callback in (stop, "{_target_:pneumo.training.callbacks.NewStop}"):
        check_config(compose_run("+trainer.min_steps=9", f"+callbacks.stop={callback}"))


@pytest.mark.parametrize("override", ["callbacks.best.filename=a", "callbacks.last.dirpath=a", "~callbacks.best"])
def test_the_paths_of_standard_checkpoints_cannot_be_changed(override: str, compose_run: Compose) -> None:
    with pytest.raises(ConfigError, match=rf"^{re.escape(override.lstrip('~').split('=')[0])}"):
        check_config(compose_run(override))


@pytest.mark.parametrize("override", ["data.train=few", "data.val=1", "data.test=-3", "data.phantom_seed=0.5"])
def test_settings_of_phantoms_are_validated(override: str, compose_run: Compose) -> None:
    with pytest.raises(ConfigError, match=f"^{override.split('=')[0]}=.*must be"):
        check_config(compose_run("data=synthetic", override))


@pytest.mark.parametrize("group", ["scheduler", "logger", "callbacks", "optimizer", "data"])
def test_a_group_that_was_removed_is_named(group: str, compose_run: Compose) -> None:
    cfg = compose_run()
    del cfg[group]
    with pytest.raises(ConfigError, match=f"`{group}` is missing"):
        check_config(cfg)


@pytest.mark.parametrize("name", ["architecture", "weights", "freeze", "head_path", "threshold"])
def test_a_setting_of_the_model_that_was_removed_is_named(name: str, compose_run: Compose) -> None:
    cfg = compose_run()
    OmegaConf.set_struct(cfg, False)
    del cfg.model[name]
    with pytest.raises(ConfigError, match=rf"^model\.{name} is missing from the configuration"):
        check_config(cfg)


EDGES = ["seed=0", "model.threshold=0.0", "data.num_workers=0", "optimizer.lr=1", "trainer.limit_train_batches=1.0"]


def test_boundary_values_are_allowed(compose_run: Compose) -> None:
    cfg = compose_run(*EDGES)
    check_config(cfg)
    assert (cfg.seed, cfg.model.threshold, cfg.data.num_workers, cfg.optimizer.lr) == (0, 0, 0, 1)


def test_settings_of_tables_require_a_table(compose_run: Compose) -> None:
    with pytest.raises(ConfigError, match=r"data.table is not a setting.*Add data=table.* without \+"):
        check_config(compose_run("+data.table=labels.csv"))
    with pytest.raises(ConfigError, match=r"file, label, patient, site, split.*other columns are kept"):
        check_config(compose_run("data=table", "data.table=labels.csv", "+data.columns.age=Age"))
    with pytest.raises(ConfigError, match=r"data.preset=mimic must be nih, rsna"):
        check_config(compose_run("data=table", "data.table=labels.csv", "data.preset=mimic"))
    check_config(compose_run("data=table", "data.table=labels.csv", "data.preset=NIH"))
