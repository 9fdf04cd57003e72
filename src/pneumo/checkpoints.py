"""Checkpoints: written whole or not at all, opened without running code, found again after their folder moved."""

import copy
import os
import re
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
from pneumo.tensors import UnreadableError, read_tensors

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
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())[:200]
        raise TrainingError(
            f"The checkpoint {path} cannot be written ({reason}): make room on its "
            f"disk or mend it, and, if there is an older {path.parent / 'last.ckpt'}, go on from there with "
            "ckpt_path= and the run's overrides."
        ) from error


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
        """Restore scores and file names; the files are those of these names in the present folder, wherever else."""
        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        own = {name: self._own_path(state_dict[name]) for name in paths}
        best = {self._own_path(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **own, "dirpath": self.dirpath, "best_k_models": best})

    def _own_path(self, path: str) -> str:
        """Return the path of a checkpoint of that name in the run's folder; checkpoints may name any file."""
        if not path:
            return path
        name = re.split(r"[/\\]", path)[-1]
        if not name.endswith(self.FILE_EXTENSION):
            raise ConfigError(f"{path} is no checkpoint of this run: start again without ckpt_path.")
        assert self.dirpath is not None
        return str(Path(self.dirpath) / name)


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
