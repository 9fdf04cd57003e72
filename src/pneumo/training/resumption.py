"""Resuming: whether a checkpoint is one that this run wrote and can continue from."""

import json
import logging
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from pneumo.config.fingerprints import recorded_settings
from pneumo.errors import ConfigError
from pneumo.models.checkpoint_reader import read_checkpoint
from pneumo.training.components import RunComponents
from pneumo.training.state_forms import FormError, show
from pneumo.training.stored_state import require_training_state

_log = logging.getLogger(__name__)


def check_resumable(path: Path, folder: Path, config: dict[str, Any], components: RunComponents) -> None:
    """Raise a ConfigError unless a run can go on from a checkpoint; nothing is written.

    Args:
        path: The checkpoint to go on from.
        folder: Where the run's checkpoints lie.
        config: The settings that it must have been written under, as `RecordConfig` keeps them.
        components: The run's.
    """
    read, best = read_checkpoint(path), folder / _best_name(components.trainer)
    check_settings(read, path, best, config)
    try:
        require_training_state(read, read_checkpoint(best), components)
    except FormError as error:
        raise ConfigError(
            f"ckpt_path={path} cannot be resumed: {error}. It is damaged or was changed. Start again without "
            "ckpt_path, or put an older copy of the whole folder in its place."
        ) from error


def _best_name(trainer: Trainer) -> str:
    """Return the file name of the checkpoint that is tested at the end, which `callbacks.best.filename` may change."""
    callback = trainer.checkpoint_callback
    return f"{callback.filename if isinstance(callback, ModelCheckpoint) and callback.filename else 'best'}.ckpt"


def check_settings(read: dict[str, Any], path: Path, best: Path, config: dict[str, Any]) -> None:
    """Raise a ConfigError unless a checkpoint lies in the run's folder and was written under its settings.

    Args:
        read: The checkpoint's content.
        path: The checkpoint.
        best: The best one so far, which is tested if no later epoch is better.
        config: See `check_resumable`.
    """
    if path.resolve().parent != best.parent.resolve() or not best.is_file():
        raise ConfigError(
            f"ckpt_path={path} does not lie next to {best}, the best checkpoint so far. A run goes on in "
            "its own folder: give ckpt_path=RUN/checkpoints/last.ckpt with the whole folder RUN in its place, and no "
            "hydra.run.dir."
        )
    stored = read.get("config", {})
    if not isinstance(stored, dict) or not all(isinstance(key, str) for key in stored):
        raise ConfigError(f"ckpt_path={path} has no settings that can be read: start again without ckpt_path.")
    if changes := describe_changes(stored, config):
        raise ConfigError(
            f"ckpt_path={path} was written by a run with other settings: {changes}. A run goes on as it began: set "
            "these as they were (data_hash follows from the radiographs), or start anew without ckpt_path; to train "
            "these weights otherwise, give the checkpoint as model.weights."
        )


def describe_changes(stored: dict[str, Any], config: dict[str, Any]) -> str:
    """Describe how settings that a checkpoint was written under differ from the present ones; empty if they do not."""
    differences = (
        sorted(key for key in stored.keys() | form.keys() if not _is_same(stored.get(key), form.get(key)))
        for form in recorded_settings(config)
    )
    other = min(differences, key=len)
    shown = ", ".join(f"{key}={show(stored.get(key))} (now {config.get(key)})" for key in other[:5])
    return f"{shown}{', ...' if other[5:] else ''}"


def resumable_checkpoint(last: Path, settings: dict[str, Any], components: RunComponents) -> str | None:
    """Return the last checkpoint if a run can go on from it; log why not if it is there without effect."""
    if not last.is_file():
        return None
    try:
        check_resumable(last, last.parent, settings, components)
    except ConfigError as error:
        _log.warning("This run begins anew: %s", error)
        return None
    _log.info("going on from %s", last)
    return str(last)


def _is_same(stored: object, value: object) -> bool:
    """Return whether a stored setting, which may be anything, is the present one."""
    if isinstance(stored, str | int | float | None) and not isinstance(value, list | dict):
        return stored == value
    try:
        return json.dumps(stored) == json.dumps(value)
    except (TypeError, ValueError, RecursionError):  # tensors, or lists that hold themselves
        return False
