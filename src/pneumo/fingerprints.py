"""Fingerprints of a configuration: those that this version writes, and those that earlier versions wrote for it."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pneumo.targets import rename_targets, stable_target

# Prefixes of settings that only choose folders, what is shown, or speed.
# fmt: off
_INDIFFERENT = (
    "paths.", "ckpt_path", "logger.", "sweep.", "launcher.", "data.root", "data.num_workers", "data.cache",
    "features.compile", "features.batch_size", "compile", "figures",
    "callbacks.lr.", "callbacks.log.", "callbacks.progress.",
)
# fmt: on


def decisive_config(cfg: DictConfig) -> dict[str, Any]:
    """Return the settings that decide a run's numbers: dotted keys, plain values, classes by their stable names."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    stable = rename_targets(plain, stable_target)
    return {key: value for key, value in flatten(stable) if is_decisive(key)}


def is_decisive(key: str) -> bool:
    """Return whether a setting, or a group of them, decides a run's numbers."""
    return not f"{key}.".startswith(_INDIFFERENT) and not key.endswith(".dirpath")


def config_hash(cfg: DictConfig) -> str:
    """Hash what decides a run's numbers, 16 hex digits."""
    return hash_settings(decisive_config(cfg))


def settings_hash(cfg: DictConfig) -> str:
    """Hash what decides a run's numbers beside its seed and its fold, 16 hex digits."""
    repeated = ("seed", "fold")
    settings = decisive_config(cfg).items()
    return hash_settings({key: value for key, value in settings if key.rpartition(".")[2] not in repeated})


def hash_settings(settings: dict[str, Any]) -> str:
    """Hash settings given as dotted keys and plain values, 16 hex digits."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def recorded_settings(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the forms in which a run's settings may have been recorded, the present one first.

    Earlier versions recorded `optimizer.fused` as null where gradients were clipped in mixed precision.
    """
    precision = str(settings.get("trainer.precision"))
    clipped = settings.get("trainer.gradient_clip_val") and (precision == "auto" or "mixed" in precision)
    if clipped and settings.get("optimizer.fused") is not None:
        return [settings, {**settings, "optimizer.fused": None}]
    return [settings]


def recorded_hashes(cfg: DictConfig) -> frozenset[str]:
    """Return every `config_hash` under which results of a configuration may have been written."""
    return frozenset(map(hash_settings, recorded_settings(decisive_config(cfg))))


def flatten(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys and the values of nested dictionaries."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
