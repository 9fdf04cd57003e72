"""Moved classes of pneumo: hashes and configurations of earlier versions remain valid."""

from collections.abc import Iterator

import pytest
import yaml
from helpers.commands import ROOT, Compose

from pneumo.config.fingerprints import STABLE_TARGETS, config_hash, settings_hash
from pneumo.config.signatures import locate
from pneumo.data.augmentation import Augmentation
from pneumo.errors import ConfigError
from pneumo.training.checkpoints import RunCheckpoint
from pneumo.training.components import build


class MovedCheckpoint(RunCheckpoint):
    """The class that writes checkpoints, at its new path."""


OLD, NEW = "pneumo.checkpoints.RunCheckpoint", f"{__name__}.MovedCheckpoint"


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STABLE_TARGETS, OLD, NEW)


def find_targets(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        yield from ([node["_target_"]] if "_target_" in node else [])
        for name, value in node.items():
            yield from find_targets(value) if name != "hydra" else ()


def test_all_classes_in_conf_have_a_stable_name() -> None:
    files = [path for path in (ROOT / "conf").rglob("*.yaml") if "hydra" not in path.parts]
    found = {target for path in files for target in find_targets(yaml.safe_load(path.read_text()))}
    assert {target for target in found if target.startswith("pneumo.")} == {*STABLE_TARGETS.values()}
    for path in STABLE_TARGETS.values():
        assert callable(locate("x", path))


def test_hashes_do_not_change_when_a_class_moves(compose_run: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = compose_run()
    earlier = config_hash(cfg), settings_hash(cfg)
    assert earlier != (config_hash(compose_run("callbacks.best._target_=a.B")), earlier[1])
    monkeypatch.setitem(STABLE_TARGETS, OLD, NEW)
    present = compose_run(f"callbacks.best._target_={NEW}", f"callbacks.last._target_={NEW}")
    assert (config_hash(present), settings_hash(present)) == earlier
    former = compose_run(f"callbacks.best._target_={OLD}", f"callbacks.last._target_={OLD}")
    assert (config_hash(former), settings_hash(former)) == earlier


@pytest.mark.usefixtures("moved")
@pytest.mark.parametrize("target", [OLD, NEW])
def test_an_earlier_path_builds_the_current_class(target: str, compose_run: Compose) -> None:
    cfg = compose_run(f"callbacks.best._target_={target}")
    best = build(cfg).trainer.checkpoint_callback
    assert isinstance(best, MovedCheckpoint)
    assert cfg.callbacks.best._target_ == target
    with pytest.raises(ConfigError, match=r"callbacks\.best\.typo is not a setting"):
        build(compose_run(f"callbacks.best._target_={target}", "+callbacks.best.typo=1"))


def test_an_earlier_path_need_not_exist(compose_run: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STABLE_TARGETS, "pneumo.gone.Augmentation", "pneumo.data.augmentation.Augmentation")
    built = build(compose_run("augment=light", "augment._target_=pneumo.gone.Augmentation"))
    assert isinstance(built.datamodule.augmentation, Augmentation)
