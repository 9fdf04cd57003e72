"""Checkpoints of a run: atomic writes with a digest, and a callback state that survives moving the run folder."""

import copy
import os
import re
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from pneumo.common.tensor_files import hash_tensor
from pneumo.errors import ConfigError, TrainingError
from pneumo.models.checkpoint_reader import read_checkpoint
from pneumo.models.checkpoint_writer import CheckpointWriteError, save_checkpoint

PAUSE = 10.0  # minimum seconds between two writes of a file


class CheckpointWriter(TorchCheckpointIO):
    """Checkpoint I/O that writes each file atomically, at most every `PAUSE` seconds.

    Lightning's own writer uses a temporary file in another folder and does not flush it. With short epochs, such as
    those of a head on cached features, writing would take longer than training. A checkpoint therefore waits in memory
    until the pause is over, a newer one replaces it, or training ends. If the process is killed, the epochs since the
    last write are lost.
    """

    def __init__(self, constant: Collection[str] = ()) -> None:
        """Initialize with the names of the weights that never change: a waiting checkpoint needs no copies of them."""
        self.constant = frozenset(constant)
        # Data pointer, version and digest of each constant weight.
        self.digests: dict[str, tuple[tuple[int, int], bytes]] = {}
        self.waiting: dict[Path, dict[str, Any]] = {}
        self.pause, self.start = PAUSE, time.monotonic()
        self.written: dict[Path, float] = {}  # time at which each file was last written because it was due

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any | None = None,  # noqa: ANN401 (Lightning's signature)
    ) -> None:
        """Write a checkpoint, or keep a copy in memory until the next write is due."""
        path = Path(path)
        # Reinserted last to keep the order in which they were saved: `last` must not be ahead of `best`.
        self.waiting.pop(path, None)
        # Each file has its own pause. With a common one, `best` would delay `last`, which is saved right after it, by a
        # whole epoch.
        if time.monotonic() >= self.written.get(path, self.start) + self.pause:
            self.waiting[path] = checkpoint
            self.flush()
            self.written[path] = time.monotonic()
        else:
            self.waiting[path] = self._copy(checkpoint)

    def flush(self) -> None:
        """Write the waiting checkpoints; raise a TrainingError if the disk is full or cannot be written."""
        for path in list(self.waiting):
            write_checkpoint(self.waiting[path], path, self._known_digests(self.waiting[path]["state_dict"]))
            del self.waiting[path]

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any | None = None,  # noqa: ANN401 (Lightning's signature)
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint as tensors and plain types only, regardless of `weights_only`."""
        self.flush()
        return read_checkpoint(Path(path))

    def teardown(self) -> None:
        """Write the waiting checkpoints when training ends, even by an error or signal; write later ones at once."""
        self.pause = 0.0
        self.flush()

    def _known_digests(self, weights: Mapping[str, Tensor]) -> dict[int, bytes]:
        """Return the digests of the weights that never change, by the `id` of their tensors.

        Each is computed once, and again if the tensor was modified in place, for example by a user's callback.
        """
        known = {}
        for name in self.constant & weights.keys():
            tensor = weights[name]
            version = tensor.data_ptr(), tensor._version
            if name not in self.digests or self.digests[name][0] != version:
                self.digests[name] = version, hash_tensor(tensor)
            known[id(tensor)] = self.digests[name][1]
        return known

    def _copy(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        weights = checkpoint["state_dict"].items()
        return {
            **_copy_to_host({key: value for key, value in checkpoint.items() if key != "state_dict"}),
            "state_dict": {n: value if n in self.constant else _copy_to_host(value) for n, value in weights},
        }


def write_checkpoint(
    checkpoint: Mapping[str, Any], path: Path, known: Mapping[int, bytes] = MappingProxyType({})
) -> None:
    """Write a checkpoint with a digest of its content.

    `known` contains digests that are already known, by the `id` of their tensors.

    Raises:
        TrainingError: The disk is full or cannot be written, or the state of a callback is nested too deeply.
    """
    try:
        save_checkpoint(checkpoint, path, known)
    except CheckpointWriteError as error:
        raise TrainingError(
            f"The checkpoint {path} cannot be written ({error}). Free space on its disk or repair it. If an older "
            f"{path.parent / 'last.ckpt'} exists, resume from it with ckpt_path= and the run's overrides."
        ) from error


def _copy_to_host(value: Any) -> Any:  # noqa: ANN401 (any content of a checkpoint)
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copy_to_host(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copy_to_host(item) for item in value)
    return copy.deepcopy(value)


class RunCheckpoint(ModelCheckpoint):
    """Checkpoint callback whose state survives moving the run folder.

    Lightning discards the best score if the folder's path has changed. The next epoch of a resumed run would then count
    as the best one.
    """

    @property
    def state_key(self) -> str:
        """State key with the file name, since two callbacks may have the same settings, such as no monitor."""
        return f"{super().state_key}, {self.filename}"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore scores and paths; the paths are moved to the current folder."""
        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        moved = {name: self._own_path(state_dict[name]) for name in paths}
        best = {self._own_path(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **moved, "dirpath": self.dirpath, "best_k_models": best})

    def _own_path(self, path: str) -> str:
        """Return the path with the same file name in the run folder; a checkpoint may contain any path."""
        if not path:
            return path
        name = re.split(r"[/\\]", path)[-1]
        if not name.endswith(self.FILE_EXTENSION):
            raise ConfigError(f"{path} is not a checkpoint of this run. Start again without ckpt_path.")
        assert self.dirpath is not None
        return str(Path(self.dirpath) / name)
