"""Checkpoint writing: atomic, with a digest of the content."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from pneumo.common.files import atomic_path, unwritable
from pneumo.common.tensor_files import DigestError
from pneumo.common.text import short_line
from pneumo.models.checkpoint_reader import DIGEST, hash_checkpoint


class CheckpointWriteError(Exception):
    """A checkpoint cannot be written; the text is the reason."""


def save_checkpoint(
    checkpoint: Mapping[str, Any], path: Path, known: Mapping[int, bytes] = MappingProxyType({})
) -> None:
    """Write a checkpoint with a digest of its content.

    `known` contains digests that are already known, by the `id` of their tensors.

    Raises:
        CheckpointWriteError: The disk is full or cannot be written, or the content is nested too deeply.
    """
    try:
        with atomic_path(path) as temporary, temporary.open("wb") as file:  # files that PyTorch opens raise no OSError
            torch.save({**checkpoint, DIGEST: hash_checkpoint(checkpoint, known)}, file)
    except (DigestError, OSError, RuntimeError) as error:
        raise CheckpointWriteError(_reason(error)) from error


def save_output(option: str, checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint as an option's output file; raise a ConfigError if it cannot be written."""
    try:
        save_checkpoint(checkpoint, path)
    except CheckpointWriteError as error:
        raise unwritable(option, path, OSError(str(error))) from error


def _reason(error: BaseException) -> str:
    """Return the operating system's reason for an error; PyTorch's writer hides it behind its own message."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return short_line(error)
