"""Checkpoints read and restored: verified against their digest and checked before a network is built."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, TypeGuard

import torch
from lightning import LightningModule
from torch import Tensor

from pneumo.common.tensor_files import DigestError, UnreadableError, digest_content, is_dense, read_tensors
from pneumo.common.text import plain
from pneumo.errors import ConfigError, PneumoError
from pneumo.models.hyperparameters import HyperparameterError, PredictionOptions, check_hyperparameters, describe

if TYPE_CHECKING:
    from typing_extensions import Self

_log = logging.getLogger(__name__)
DIGEST = "content_sha256"  # the key of the digest of all other keys
# What timm and torchvision raise for sizes and tags that an architecture does not support.
_REFUSED = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_UNBUILDABLE = (PneumoError, *_REFUSED)


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
        for name, holds in _FORMS.items():
            if name in content and not holds(content[name]):
                raise _ContentError(f"its {name} is {describe(content[name])}, or holds what does not belong there")
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


def _tensors(value: object) -> TypeGuard[dict[str, Tensor]]:
    return _named(value) and all(isinstance(tensor, Tensor) and is_dense(tensor) for tensor in value.values())


def _named(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict) and all(isinstance(name, str) for name in value)


def _config(value: object) -> bool:
    """Check a run's settings, whose class folders `pneumo export --data` looks for in a data set, and nowhere else."""
    if not _named(value):
        return False
    folders = value.get("data.classes", [])
    return isinstance(folders, list) and all(
        isinstance(folder, str | int) and not Path(str(folder)).is_absolute() and ".." not in Path(str(folder)).parts
        for folder in folders
    )


def _counts(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _numbers(value: object) -> bool:
    return _named(value) and all(isinstance(number, int | float) for number in value.values())


def _outliers(value: object) -> bool:
    """Check the arguments of `OodDetector`: mean (P,), scale (P,) and components (components, P)."""
    if not _tensors(value) or value.keys() != {"mean", "scale", "components"}:
        return False
    mean, scale, components = value["mean"], value["scale"], value["components"]
    return (
        all(tensor.dtype == torch.float32 and bool(tensor.isfinite().all()) for tensor in value.values())
        and (mean.ndim, components.ndim) == (1, 2)
        and mean.shape == scale.shape == components.shape[1:]
    )


def _validation(value: object) -> bool:
    """Check the predictions of an epoch's validation: none, or index (N,) and logits (N, classes)."""
    if not _tensors(value) or value.keys() not in (set(), {"index", "logits"}):
        return False
    if not value:
        return True
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


class CheckpointModule(LightningModule):
    """A LightningModule that is restored from checkpoints of pneumo alone.

    Lightning's own restoration obeys every hyperparameter of a file: it imports what `_instantiator` names (before
    2.6.6), and constructors load the weights that they name.
    """

    @classmethod
    def from_hyperparameters(cls, **hyperparameters: Any) -> Self:  # noqa: ANN401 (of several types)
        """Build a classifier with random weights from hyperparameters as checkpoints hold them."""
        names = hyperparameters.keys() & {field.name for field in fields(PredictionOptions)}
        prediction = PredictionOptions(**{name: hyperparameters.pop(name) for name in names})
        return cls(**hyperparameters, prediction=prediction)

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: str | os.PathLike[str] | IO[bytes],
        map_location: Any = None,  # noqa: ANN401 (Lightning's signature)
        hparams_file: str | os.PathLike[str] | None = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> Self:
        """Restore a classifier without network and configuration, with all weights from the file.

        Args:
            checkpoint_path: Of a file that `read_checkpoint` accepts.
            map_location: The device to move it to; None: the CPU.
            hparams_file: Must be None: checkpoints hold their hyperparameters.
            strict: Whether the weights must fit exactly; None: yes.
            weights_only: Without effect, since a checkpoint is never opened otherwise.
            kwargs: Hyperparameters, which replace those of the file.

        Raises:
            ConfigError: It is no checkpoint of a classifier, is damaged, or holds a value that breaks its rule.
        """
        if hparams_file is not None or not isinstance(checkpoint_path, str | os.PathLike):
            raise ConfigError(
                f"{cls.__name__}.load_from_checkpoint takes the path of a checkpoint, which holds its hyperparameters: "
                "give no hparams_file, and no open file."
            )
        path = Path(checkpoint_path)
        content = read_checkpoint(path)
        settings = {**_require_settings(content, path), **kwargs}
        if strict is not False:
            _require_fit(cls, settings, content["state_dict"], path)
        try:
            module = cls.from_hyperparameters(**settings)
            module.on_load_checkpoint(content)
            module.load_state_dict(content["state_dict"], strict=strict is not False)
        except _UNBUILDABLE as error:
            raise _unrestorable(path, str(error)) from error
        return module.to(torch.device("cpu" if map_location is None else map_location))


def _require_settings(content: dict[str, Any], path: Path) -> dict[str, Any]:
    if "state_dict" not in content:
        raise _unrestorable(path, "it holds no weights")
    try:
        settings = check_hyperparameters(content["hyper_parameters"], ("architecture", "classes", "image_size"))
    except HyperparameterError as error:
        raise _unrestorable(path, str(error)) from error
    return {name: value for name, value in settings.items() if name != "weights"}


def _require_fit(cls: type[CheckpointModule], settings: dict[str, Any], state: dict[str, Tensor], path: Path) -> None:
    """Raise an error unless the weights fit the network that the settings describe, before memory is taken for it."""
    try:
        with torch.device("meta"):
            expected = cls.from_hyperparameters(**settings).state_dict()
    except _UNBUILDABLE:
        return  # some networks need real tensors to be built; the others fail once more
    both = ((name, expected[name], state[name]) for name in expected.keys() & state.keys())
    # Training with trainer.precision=bf16-true leaves weights of half precision.
    misfits = {name for name, a, b in both if (a.shape, a.is_floating_point()) != (b.shape, b.is_floating_point())}
    for fault, names in (
        ("lacks", expected.keys() - state.keys()),
        ("has unknown", state.keys() - expected.keys()),
        ("has of another shape or type", misfits),
    ):
        if names:
            shown = ", ".join(sorted(names)[:3])
            raise _unrestorable(path, f"of {len(expected)} weights it {fault} {len(names)} ({shown[:200]!a})")


def _unrestorable(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"{path} cannot be opened as a classifier: {plain(reason, 300)}. Take a checkpoint that this "
        "version of pneumo or an earlier one wrote, such as RUN/checkpoints/best.ckpt."
    )
