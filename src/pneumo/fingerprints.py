"""Fingerprints of a configuration: those that this version writes, and those that earlier versions wrote for it."""

from typing import Any

from omegaconf import DictConfig

from pneumo.config import decisive_config, hash_settings


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
