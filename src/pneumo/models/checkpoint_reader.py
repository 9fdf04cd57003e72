"""The reader of checkpoints: bounded in size, verified by digest, hyperparameters checked."""

import logging
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from pneumo.common.tensor_files import DigestError, UnreadableError, digest_content, is_dense, read_tensors
from pneumo.errors import ConfigError
from pneumo.models.hyperparameters import HyperparameterError, check_hyperparameters, describe

_log = logging.getLogger(__name__)
DIGEST = "content_sha256"  # the key of the digest of all other keys


class _ContentError(Exception):
    """A checkpoint's content is not as pneumo writes it; the text says how, in a clause."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Open a checkpoint on the CPU, as tensors and plain types only, and check what it holds.

    Its bits are verified by their SHA-256. Checkpoints of early versions have none, which is logged once for each file.

    Raises:
        ConfigError: There is no such file, it is no checkpoint, is damaged or was altered, or a value breaks its rule.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is not a file: give a checkpoint's path, such as RUN/checkpoints/last.ckpt.")
    try:
        content = read_tensors(path, checked=True)
    except UnreadableError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.strerror:
            raise ConfigError(
                f"{path} cannot be read ({cause.strerror}): change its permissions, or take another checkpoint."
            ) from error
        raise ConfigError(
            f"{path} cannot be read as a checkpoint ({error}): it is damaged or was not written by pneumo. Take an "
            "intact copy of it, or another checkpoint."
        ) from error
    if not isinstance(content, dict) or "hyper_parameters" not in content:
        raise ConfigError(f"{path} holds no checkpoint of a classifier: take one that pneumo wrote.")
    try:
        # Parts of a storage may be in a file several times, as tied weights are.
        if DIGEST in content and digest_checkpoint(content, most=4 * path.stat().st_size) != content[DIGEST]:
            raise _ContentError(f"its content does not have the SHA-256 that it stores as {DIGEST}")
        content["hyper_parameters"] = check_hyperparameters(content["hyper_parameters"])
        _check_form(content)
    except (_ContentError, DigestError, HyperparameterError) as error:
        raise ConfigError(
            f"{path} is not a checkpoint as pneumo writes it: {error}. It is damaged or was altered: take an intact "
            "copy of it, or another checkpoint."
        ) from error
    if DIGEST not in content:
        _warn_unverified(path.resolve(), path.stat().st_mtime_ns)
    return content


def digest_checkpoint(
    content: Mapping[str, Any], known: Mapping[int, bytes] = MappingProxyType({}), most: float = math.inf
) -> str:
    """Return the SHA-256 that a checkpoint stores of its other keys; see `digest_content`."""
    return digest_content({key: value for key, value in content.items() if key != DIGEST}, known, most)


@cache
def _warn_unverified(path: Path, changed: int) -> None:
    _log.warning(
        "%s has no SHA-256, as checkpoints of early versions have none: whether it was altered cannot be verified.",
        path,
    )


def _check_form(content: dict[str, Any]) -> None:
    """Raise an error if a part that pneumo reads is of another type or shape than pneumo writes."""
    for name, holds in _FORMS.items():
        if name in content and not holds(content[name]):
            raise _ContentError(f"its {name} is {describe(content[name])}, or holds what does not belong there")


def _tensors(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) and is_dense(tensor) for name, tensor in value.items()
    )


def _named(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) for name in value)


def _config(value: object) -> bool:
    """Check a run's settings, whose class folders `pneumo export --data` looks for in a data set, and nowhere else."""
    if not isinstance(value, dict) or not _named(value):
        return False
    folders = value.get("data.classes", [])
    return isinstance(folders, list) and all(
        isinstance(folder, str | int) and not Path(str(folder)).is_absolute() and ".." not in Path(str(folder)).parts
        for folder in folders
    )


def _counts(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _numbers(value: object) -> bool:
    return (
        isinstance(value, dict) and _named(value) and all(isinstance(number, int | float) for number in value.values())
    )


def _outliers(value: object) -> bool:
    """Check the arguments of `OodDetector`: mean (P,), scale (P,) and components (components, P)."""
    if not isinstance(value, dict) or value.keys() != {"mean", "scale", "components"} or not _tensors(value):
        return False
    mean, scale, components = value["mean"], value["scale"], value["components"]
    return (
        all(tensor.dtype == torch.float32 and bool(tensor.isfinite().all()) for tensor in value.values())
        and (mean.ndim, components.ndim) == (1, 2)
        and mean.shape == scale.shape == components.shape[1:]
    )


def _validation(value: object) -> bool:
    """Check the predictions of an epoch's validation: none, or index (N,) and logits (N, classes)."""
    if not isinstance(value, dict) or not _tensors(value):
        return False
    if not value:
        return True
    if value.keys() != {"index", "logits"}:
        return False
    index, logits = value["index"], value["logits"]
    if index.dtype != torch.int64 or not logits.is_floating_point():
        return False
    # Early versions lost the dimensions of a single image.
    return index.numel() == 1 or ((index.ndim, logits.ndim) == (1, 2) and len(index) == len(logits))


_FORMS = {
    "state_dict": _tensors,
    "outliers": _outliers,
    "validation": _validation,
    "metrics": _numbers,
    "config": _config,
    "epoch": _counts,
    "global_step": _counts,
}
