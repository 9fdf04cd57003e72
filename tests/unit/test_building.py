import pytest
from omegaconf import OmegaConf
from support import Compose

from pneumo.building import build
from pneumo.config import config_hash
from pneumo.errors import ConfigError
from pneumo.training import run

CLIPPED = ("trainer.precision=bf16-mixed", "+trainer.gradient_clip_val=1")  # as on a GPU, where it is the default


def test_building_leaves_the_configuration_as_it_was_composed(compose_run: Compose) -> None:
    cfg = compose_run(*CLIPPED)
    before = OmegaConf.to_container(cfg, resolve=True)
    OmegaConf.set_readonly(cfg, True)
    parts = build(cfg)
    assert OmegaConf.to_container(cfg, resolve=True) == before
    optimizer = parts.classifier.make_optimizer
    assert optimizer is not None
    assert optimizer(parts.classifier.parameters()).defaults["fused"] is None  # Lightning could not clip it otherwise
    assert cfg.optimizer.fused is True


def test_a_run_keeps_its_configuration_from_being_changed(compose_run: Compose) -> None:
    cfg = compose_run("optimizer.lr=-1")
    with pytest.raises(ConfigError):
        run(cfg)
    assert OmegaConf.is_readonly(cfg)


def test_a_clipped_run_in_mixed_precision_is_recognised_when_it_is_repeated(compose_run: Compose) -> None:
    small = ("trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1")
    cfg = compose_run(*CLIPPED, *small)
    assert run(cfg)["config_hash"] == config_hash(compose_run(*CLIPPED, *small))
