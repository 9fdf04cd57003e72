"""Checkpoints: written whole or not at all, opened without running code, found again after their folder moved."""

import copy
import logging
import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from pneumo.errors import ConfigError, TrainingError
from pneumo.files import atomic_path
from pneumo.fingerprints import recorded_settings
from pneumo.tensors import UnreadableError, read_tensors

_log = logging.getLogger(__name__)

PAUSE = 10.0  # seconds


class CheckpointWriter(TorchCheckpointIO):
    """Writes checkpoints atomically, and not more often than every `PAUSE` seconds.

    Lightning's own way writes through a temporary file in another folder and does not flush it. Where epochs are short,
    as those of a head on cached features, writing would take longer than training: a checkpoint then waits in memory
    until the pause is over, a newer one takes its place, or training ends. A kill costs the epochs of that time.
    """

    def __init__(self, constant: Collection[str] = ()) -> None:
        """Take the names of the weights that never change, which need not be copied while a checkpoint waits."""
        self.constant = frozenset(constant)
        self.waiting: dict[Path, dict[str, Any]] = {}
        self.pause = PAUSE
        self.due = time.monotonic() + self.pause

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any | None = None,  # noqa: ANN401 (Lightning's signature)
    ) -> None:
        """Write a checkpoint, or keep a copy of it until it is due."""
        # At the end, so that the order stays that in which they were saved: `last` must not be ahead of `best`.
        self.waiting.pop(Path(path), None)
        if time.monotonic() >= self.due:
            self.waiting[Path(path)] = checkpoint
            self.flush()
            self.due = time.monotonic() + self.pause
        else:
            self.waiting[Path(path)] = self._copy(checkpoint)

    def flush(self) -> None:
        """Write what waits.

        Raises:
            TrainingError: The disk is full or cannot be written.
        """
        for path in list(self.waiting):
            _write(self.waiting[path], path)
            del self.waiting[path]

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any | None = None,  # noqa: ANN401 (Lightning's signature)
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Open a checkpoint, as tensors and plain types only, whatever `weights_only` says."""
        self.flush()
        return read_checkpoint(Path(path))

    def teardown(self) -> None:
        """Write what waits when training ends, also by an error or a signal; later checkpoints are written at once."""
        self.pause, self.due = 0.0, 0.0
        self.flush()

    def _copy(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        weights = checkpoint["state_dict"].items()
        return {
            **_copy_to_host({key: value for key, value in checkpoint.items() if key != "state_dict"}),
            "state_dict": {n: value if n in self.constant else _copy_to_host(value) for n, value in weights},
        }


def _write(checkpoint: dict[str, Any], path: Path) -> None:
    try:
        with atomic_path(path) as temporary, temporary.open("wb") as file:  # PyTorch's own file raises no OSError
            torch.save(checkpoint, file)
    except (OSError, RuntimeError) as error:
        raise TrainingError(
            f"The checkpoint {path} cannot be written ({_reason(error)}): make room on its "
            f"disk or mend it, and, if there is an older {path.parent / 'last.ckpt'}, go on from there with "
            "ckpt_path= and the run's overrides."
        ) from error


def _reason(error: BaseException) -> str:
    """Return the system's reason behind an error of PyTorch's writer, which has words of its own for it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return " ".join(str(error).split())[:200]


def _copy_to_host(value: Any) -> Any:  # noqa: ANN401 (whatever a checkpoint holds)
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copy_to_host(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copy_to_host(item) for item in value)
    return copy.deepcopy(value)


class RunCheckpoint(ModelCheckpoint):
    """A checkpoint of fixed name in the run's folder, whose state survives moving that folder.

    Lightning forgets the best score when the folder's path changed; a resumed run would then take its next epoch for
    the best one.
    """

    @property
    def state_key(self) -> str:
        """Tell it from another whose settings are the same, as where nothing is monitored."""
        return f"{super().state_key}, {self.filename}"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the callback's state, with the old folder replaced by the present one."""
        old, new = str(state_dict["dirpath"]), str(self.dirpath)
        moved = {name: value.replace(old, new) for name, value in state_dict.items() if isinstance(value, str)}
        best = {path.replace(old, new): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **moved, "best_k_models": best})


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Open a checkpoint on the CPU, as tensors and plain types only.

    Raises:
        ConfigError: There is no such file, or it is no checkpoint.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is not a file: give a checkpoint's path, such as RUN/checkpoints/last.ckpt.")
    try:
        content = read_tensors(path)
    except UnreadableError as error:
        raise ConfigError(
            f"{path} cannot be read as a checkpoint ({error}): it is damaged or was not "
            "written by pneumo. Take another one, or start anew without ckpt_path."
        ) from error
    if not isinstance(content, dict) or "hyper_parameters" not in content:
        raise ConfigError(f"{path} holds no checkpoint of a classifier: take one that pneumo wrote.")
    return content


def write_decision(path: Path, decision: dict[str, float], outliers: dict[str, Tensor] | None) -> None:
    """Put into a checkpoint what it then answers with: hyperparameters, and what tells unlike images, if anything."""
    checkpoint = read_checkpoint(path)
    checkpoint["hyper_parameters"] |= decision
    if outliers is not None:
        checkpoint["outliers"] = outliers
    _write(checkpoint, path)


def check_resumable(path: Path, folder: Path, config: dict[str, Any]) -> None:
    """Raise a ConfigError unless a run can go on from a checkpoint.

    Args:
        path: The checkpoint to go on from.
        folder: Where the run's checkpoints lie; the best so far is tested if no later epoch is better.
        config: The settings that it must have been written under, as `RecordConfig` keeps them.
    """
    read = read_checkpoint(path)
    if path.resolve().parent != folder.resolve() or not (folder / "best.ckpt").is_file():
        raise ConfigError(
            f"ckpt_path={path} does not lie in {folder} beside best.ckpt, the best checkpoint so far. A run goes on in "
            "its own folder: give ckpt_path=RUN/checkpoints/last.ckpt with the whole folder RUN in its place, and no "
            "hydra.run.dir."
        )
    changes = describe_changes(read.get("config", {}), config)
    if not changes:
        return
    raise ConfigError(
        f"ckpt_path={path} was written by a run with other settings: {changes}. A run "
        "goes on as it began: set these as they were (data_hash follows from the radiographs), or "
        "start anew without ckpt_path; to train these weights otherwise, give the checkpoint as model.weights."
    )


def describe_changes(stored: dict[str, Any], config: dict[str, Any]) -> str:
    """Describe how settings that a checkpoint was written under differ from the present ones; empty if they do not."""
    differences = (
        sorted(key for key in stored.keys() | form.keys() if stored.get(key) != form.get(key))
        for form in recorded_settings(config)
    )
    other = min(differences, key=len)
    shown = ", ".join(f"{key}={stored.get(key)} (now {config.get(key)})" for key in other[:5])
    return f"{shown}{', ...' if other[5:] else ''}"


def resumable_checkpoint(last: Path, settings: dict[str, Any]) -> str | None:
    """Give the last checkpoint if a run can go on from it; say why not if it is there in vain."""
    if not last.is_file():
        return None
    try:
        check_resumable(last, last.parent, settings)
    except ConfigError as error:
        _log.warning("This run begins anew: %s", error)
        return None
    _log.info("going on from %s", last)
    return str(last)
