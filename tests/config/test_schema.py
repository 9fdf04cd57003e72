"""Consistency of the schema, conf/ and the constructors; new files in conf/ are included."""

from dataclasses import fields

import pytest
from helpers.commands import ROOT, Compose
from omegaconf import DictConfig, OmegaConf

from pneumo.config.checks import argument_rules, check_config
from pneumo.config.schema import GROUPS, HYDRA_KEYS, PRESET_NAMES, SWEEP, TABLE_COLUMNS, TARGETS, TOP_LEVEL
from pneumo.config.signatures import locate, parameters
from pneumo.data.label_table import STANDARD
from pneumo.data.table_presets import PRESETS
from pneumo.errors import ConfigError
from pneumo.models.classifier import Classifier
from pneumo.models.fine_tuning import FineTuning, TrainingOptions
from pneumo.models.hyperparameters import PredictionOptions
from pneumo.training.backbone_pass import FeatureOptions

SET_BY_PNEUMO = {"augmentation", "pin_memory"}
SET_BY_LIGHTNING = {"save_top_k", "save_last", "save_weights_only", "train_time_interval", "save_on_exception"}


def load(path: str) -> DictConfig:
    read = OmegaConf.load(ROOT / "conf" / path)
    assert isinstance(read, DictConfig)
    return read


@pytest.mark.parametrize("target", TARGETS)
def test_the_schema_of_a_target_and_its_constructor_agree(target: str) -> None:
    known, closed = parameters(locate("x", target))
    assert closed
    assert TARGETS[target].keys() == known.keys() - SET_BY_PNEUMO - SET_BY_LIGHTNING
    for name, rule in TARGETS[target].items():
        if known[name].default is known[name].empty:
            assert rule.required, name


def test_the_schema_and_train_yaml_agree() -> None:
    train = load("train.yaml")
    assert {name for name, value in train.items() if not isinstance(value, DictConfig) and name != "defaults"} == {
        name for name, rule in TOP_LEVEL.items() if rule.required
    }
    for group in GROUPS.keys() & train.keys():
        assert GROUPS[group].keys() == train[group].keys(), group
    assert GROUPS["features"].keys() == {field.name for field in fields(FeatureOptions)}
    assert GROUPS["fine_tuning"].keys() == {field.name for field in fields(FineTuning)}
    options = {field.name for each in (PredictionOptions, TrainingOptions) for field in fields(each)}
    assert GROUPS["model"].keys() <= parameters(Classifier)[0].keys() | options


def test_the_sweep_schema_and_conf_agree() -> None:
    assert SWEEP["sweep"].keys() == load("sweep/default.yaml").keys()
    launchers = [load(f"launcher/{path.name}").launcher for path in (ROOT / "conf" / "launcher").glob("*.yaml")]
    assert SWEEP["launcher"].keys() == {name for launcher in launchers for name in launcher}


@pytest.mark.parametrize("group", ["callbacks", "data", "augment", "optimizer", "scheduler", "trainer", "logger"])
def test_each_key_in_conf_has_a_rule(group: str) -> None:
    targets: dict[str, str] = {}
    for path in sorted((ROOT / "conf" / group).glob("*.yaml"), key=lambda path: path.name != "default.yaml"):
        read = load(f"{group}/{path.name}")
        nodes = read if group in ("callbacks", "logger") else {"": read}
        for name, node in nodes.items():
            if name == "defaults":
                continue
            own = node.get("_target_") or targets.get(str(name)) or load(f"{group}/{node.defaults[0]}.yaml")._target_
            targets.setdefault(str(name), own)
            assert set(node) - {"defaults", *HYDRA_KEYS} <= argument_rules(group, own)[0].keys(), path.name


def flatten(node: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for name in map(str, node):
        inside = None if OmegaConf.is_interpolation(node, name) else node[name]
        keys += flatten(inside, f"{prefix}{name}.") if isinstance(inside, DictConfig) else [f"{prefix}{name}"]
    return keys


def test_no_setting_accepts_a_mapping_as_its_value(compose_run: Compose) -> None:
    cfg = compose_run("callbacks=average")
    keys = flatten(cfg)
    assert len(keys) > 100
    OmegaConf.set_struct(cfg, False)
    for key in keys[::3]:  # all of them would take seconds
        group, _, name = key.rpartition(".")
        parent = OmegaConf.select(cfg, group) if group else cfg
        before = parent._get_node(name)
        parent[name] = {"a": 1}
        with pytest.raises(ConfigError, match=r"[\w.]+ (is not a setting|cannot be resolved)|[\w.]+=.* must be"):
            check_config(cfg)
        parent[name] = before


def test_the_schema_knows_the_columns_and_presets_of_tables() -> None:
    assert set(PRESET_NAMES) == set(PRESETS)
    assert set(TABLE_COLUMNS) == set(STANDARD) == load("data/table.yaml")["columns"].keys()
