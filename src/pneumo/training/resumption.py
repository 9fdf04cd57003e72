"""Resumption: checks of the checkpoint to resume from, and messages on how to resume a stopped or failed run."""

import json
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from pneumo.common.disk import disk_error
from pneumo.common.streams import LostOutputError
from pneumo.config.console import describe_resume
from pneumo.config.fingerprints import recorded_settings
from pneumo.config.output_folder import LOCK
from pneumo.errors import ConfigError, PneumoError
from pneumo.models.checkpoint_reader import read_checkpoint
from pneumo.runs.status import MANIFEST
from pneumo.training.components import RunComponents
from pneumo.training.state_schema import StateError, format_value
from pneumo.training.stored_state import require_training_state

_log = logging.getLogger(__name__)


def resumable_checkpoint(last: Path, settings: dict[str, Any], components: RunComponents) -> str | None:
    """Return the last checkpoint if a run can resume from it; if it exists but cannot be used, log the reason."""
    if not last.is_file():
        return None
    try:
        check_resumable(last, last.parent, settings, components)
    except ConfigError as error:
        _log.warning("Training from scratch: %s", error)
        return None
    _log.info("Resuming from %s", last)
    return str(last)


def check_resumable(path: Path, folder: Path, config: dict[str, Any], components: RunComponents) -> None:
    """Raise a ConfigError unless a run with its checkpoints in `folder` can resume from `path`; write nothing."""
    callback = components.trainer.checkpoint_callback  # the one whose checkpoint is tested: `callbacks.best`
    name = isinstance(callback, ModelCheckpoint) and callback.filename
    checkpoint, best = read_checkpoint(path), folder / f"{name or 'best'}.ckpt"
    check_settings(checkpoint, path, best, config)
    try:
        require_training_state(checkpoint, read_checkpoint(best), components)
    except StateError as error:
        raise ConfigError(
            f"ckpt_path={path} cannot be resumed, since it is damaged or was changed: {error}. Start again without "
            "ckpt_path, or restore the whole run folder from an older copy."
        ) from error


def check_settings(checkpoint: dict[str, Any], path: Path, best: Path, config: dict[str, Any]) -> None:
    """Raise a ConfigError unless a checkpoint is next to the best one and was written with the run's settings."""
    if path.resolve().parent != best.parent.resolve() or not best.is_file():
        raise ConfigError(
            f"ckpt_path={path} is not next to {best}, the best checkpoint so far. A run resumes in its own folder: set "
            "ckpt_path=RUN/checkpoints/last.ckpt, keep the whole folder RUN, and do not set hydra.run.dir."
        )
    if changes := _describe_changes(checkpoint.get("config", {}), config):
        raise ConfigError(
            f"ckpt_path={path} was written by a run with other settings: {changes}. Restore these settings to resume "
            "(data_hash depends on the radiographs), or remove ckpt_path to train from scratch. To train these weights "
            "with new settings, set model.weights to the checkpoint."
        )


def check_unfinished(folder: Path, settings: dict[str, object]) -> None:
    """Raise a ConfigError if the checkpoints of an unfinished run with other settings would be lost."""
    if (folder / "results.json").exists():
        return
    for name in ("last.ckpt", "best.ckpt"):
        try:
            stored = read_checkpoint(folder / "checkpoints" / name).get("config", {})
        except ConfigError:  # missing, or damaged and therefore useless
            continue
        if changes := _describe_changes(stored, settings):
            raise ConfigError(
                f"{folder} contains an unfinished run with other settings: {changes}. Its checkpoints would be lost. "
                "Set hydra.run.dir=FOLDER or remove the folder; in a sweep, set another sweep.name, or "
                "sweep.overwrite=true to replace it."
            )


def _describe_changes(stored: dict[str, Any], config: dict[str, Any]) -> str:
    """Describe how the settings stored in a checkpoint differ from the current ones; empty if they are equal."""
    differences = (
        sorted(key for key in stored.keys() | form.keys() if not _is_equal(stored.get(key), form.get(key)))
        for form in recorded_settings(config)
    )
    changed = min(differences, key=len)
    shown = [f"{key}={format_value(stored.get(key))} (now {config.get(key)})" for key in changed[:5]]
    return ", ".join([*shown, "..."] if changed[5:] else shown)


def _is_equal(stored: object, value: object) -> bool:
    """Return whether a stored setting of any type equals the current one."""
    if isinstance(stored, str | int | float | None) and not isinstance(value, list | dict):
        return stored == value
    try:
        return json.dumps(stored) == json.dumps(value)
    except (TypeError, ValueError, RecursionError):  # tensors, or lists that contain themselves
        return False


@contextmanager
def handle_interruptions(last: Path) -> Iterator[None]:
    """Log how to resume after a signal; convert a MisconfigurationException to a ConfigError."""
    try:
        yield
    except MisconfigurationException as error:
        raise ConfigError(f"Lightning cannot run with these settings of `trainer`: {error}") from error
    except LostOutputError:
        raise
    except (SystemExit, KeyboardInterrupt) as stop:  # Lightning exits without a message; Ctrl-C outside of it
        _log.warning("Stopped by a signal. %s", describe_resume(last))
        number = signal.SIGTERM if isinstance(stop, SIGTERMException) else signal.SIGINT
        code = stop.code if isinstance(stop, SystemExit) else None
        raise SystemExit(code if isinstance(code, int) and code > 128 else 128 + number) from None


@contextmanager
def handle_disk_errors(last: Path) -> Iterator[None]:
    """Convert a disk error, or the removal of the run folder, to a ConfigError that explains how to resume."""
    folder = last.parent.parent
    existed = _contains_run(folder)  # False on other machines of a run without a shared disk
    try:
        yield
    except (OSError, PneumoError) as error:
        if existed and not _contains_run(folder):  # the folder may exist again, since writers create it
            raise ConfigError(
                f"The run folder {folder} was removed or renamed during the run. Start again with the same command."
            ) from error
        failure = disk_error(error) if isinstance(error, OSError) else None
        if failure is None:
            raise
        raise ConfigError(f"{failure} {describe_resume(last)}") from error


def _contains_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in (LOCK, MANIFEST, "splits.csv"))
