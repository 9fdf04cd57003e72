"""Checks of a composed configuration, made before anything heavy is imported or read."""

import hashlib
import math
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pneumo.errors import ConfigError

_Rule = tuple[Callable[[Any], bool], str]


def check_config(cfg: DictConfig) -> None:
    """Check the values that a user is likely to set.

    Raises:
        ConfigError: One of them cannot work; the message tells what could.
    """
    for key, (holds, rule) in _RULES.items():
        value = OmegaConf.select(cfg, key)
        if not holds(value):
            raise ConfigError(f"{key}={value} must be {rule}.")


def config_hash(cfg: DictConfig) -> str:
    """Hash what decides a run's numbers, 16 hex digits: all of its configuration but where things lie."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    for key in ("paths", "ckpt_path", "callbacks", "logger"):
        plain.pop(key, None)
    for key in ("root", "num_workers"):
        plain["data"].pop(key, None)
    return hashlib.sha256(OmegaConf.to_yaml(OmegaConf.create(plain), sort_keys=True).encode()).hexdigest()[:16]


def _number(lowest: float, highest: float = math.inf, above: bool = False) -> Callable[[Any], bool]:
    def holds(value: Any) -> bool:  # noqa: ANN401 (anything that YAML gives)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return (lowest < value if above else lowest <= value) and value <= highest and math.isfinite(value)

    return holds


def _whole(lowest: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= lowest


_RULES: dict[str, _Rule] = {
    "seed": (_whole(0), "a whole number from 0, such as seed=0"),
    "optimizer.lr": (_number(0, above=True), "a number above 0, such as optimizer.lr=0.001"),
    "trainer.max_epochs": (_whole(1), "a whole number from 1, such as trainer.max_epochs=20"),
    "data.image_size": (_whole(1), "a whole number of pixels, such as data.image_size=224"),
    "data.batch_size": (_whole(1), "a whole number from 1, such as data.batch_size=32"),
    "data.num_workers": (
        lambda value: value is None or _whole(0)(value),
        "a whole number from 0, or null for one per CPU core, such as data.num_workers=2",
    ),
    "data.val_fraction": (
        _number(0, 0.5, above=True),
        "a share above 0 and at most 0.5, such as data.val_fraction=0.1",
    ),
    "model.threshold": (_number(0, 1), "a probability from 0 to 1, such as model.threshold=0.5"),
    "model.freeze": (lambda value: isinstance(value, bool), "true or false"),
}
