"""Checkpoint reading and restoration, with verification of digest and content before a network is built."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any

import torch
from lightning import LightningModule
from torch import Tensor

from pneumo.common.input_format import InputFormat
from pneumo.common.tensor_files import DigestError, UnreadableError, hash_content, read_tensors
from pneumo.common.text import short_line
from pneumo.errors import ConfigError, PneumoError
from pneumo.models.checkpoint_content import ContentError, validate_content
from pneumo.models.ensemble_content import MEMBERS, validate_ensemble
from pneumo.models.hyperparameters import HyperparameterError, PredictionOptions, check_hyperparameters

if TYPE_CHECKING:
    from typing_extensions import Self

_log = logging.getLogger(__name__)
_INPUT_OPTIONS = frozenset(InputFormat._fields) - {"size"}
DIGEST = "content_sha256"  # key of the digest over all other keys
# timm and torchvision raise these for unsupported image sizes and tags.
_BUILD_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_UNBUILDABLE = (PneumoError, *_BUILD_ERRORS)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint or an ensemble on the CPU, restricted to tensors and plain types, and validate its content.

    The content is verified by its SHA-256. Checkpoints of early versions have none; a warning is logged once per file.
    The key `members` of an ensemble contains the content of each member; see `pneumo.models.ensemble_content`.

    Raises:
        ConfigError: The file is missing, is not a checkpoint, is damaged or altered, or holds an invalid value.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is not a file. Use the path of a checkpoint, such as RUN/checkpoints/last.ckpt.")
    try:
        content = read_tensors(path, checked=True)
    except UnreadableError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.strerror:
            raise ConfigError(
                f"{path} cannot be read ({cause.strerror}). Change its permissions or use another checkpoint."
            ) from error
        raise ConfigError(
            f"{path} cannot be read as a checkpoint ({error}): it is damaged or was not written by pneumo. Use an "
            "intact copy or another checkpoint."
        ) from error
    if not isinstance(content, dict) or "hyper_parameters" not in content:
        raise ConfigError(f"{path} is not the checkpoint of a classifier. Use a checkpoint written by pneumo.")
    try:
        # A file may contain parts of a storage several times, such as tied weights.
        if DIGEST in content and hash_checkpoint(content, max_bytes=4 * path.stat().st_size) != content[DIGEST]:
            raise ContentError(f"its content does not have the SHA-256 that it stores as {DIGEST}")
        validate_content(content)
        if MEMBERS in content:
            if DIGEST not in content:
                raise ContentError(f"it is an ensemble without the SHA-256 {DIGEST}")
            validate_ensemble(content)
    except (ContentError, DigestError, HyperparameterError) as error:
        raise ConfigError(
            f"{path} is not a valid pneumo checkpoint: {error}. It is damaged or was altered. Use an intact copy or "
            "another checkpoint."
        ) from error
    if DIGEST not in content:
        _warn_unverified(path.resolve(), path.stat().st_mtime_ns)
    return content


def hash_checkpoint(
    content: Mapping[str, Any], known: Mapping[int, bytes] = MappingProxyType({}), max_bytes: float = math.inf
) -> str:
    """Compute the SHA-256 of all keys of a checkpoint but `DIGEST`; see `hash_content`."""
    return hash_content({key: value for key, value in content.items() if key != DIGEST}, known, max_bytes)


@cache
def _warn_unverified(path: Path, modified: int) -> None:
    _log.warning("%s has no SHA-256, like all files of early versions: its integrity cannot be verified.", path)


class CheckpointModule(LightningModule):
    """A LightningModule that is restored only from checkpoints written by pneumo.

    Lightning's own `load_from_checkpoint` trusts the hyperparameters of a file. It imports the object in
    `_instantiator` (before 2.6.6), and constructors load any weights that the file specifies.
    """

    @classmethod
    def from_hyperparameters(cls, **hyperparameters: Any) -> Self:  # noqa: ANN401 (of several types)
        """Build a classifier with random weights from the hyperparameters of a checkpoint."""
        names = hyperparameters.keys() & {field.name for field in fields(PredictionOptions)}
        prediction = PredictionOptions(**{name: hyperparameters.pop(name) for name in names})
        optional = {name: hyperparameters.pop(name) for name in _INPUT_OPTIONS & hyperparameters.keys()}
        input_format = InputFormat(hyperparameters.pop("image_size"), **optional)
        return cls(**hyperparameters, input_format=input_format, prediction=prediction)

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
        """Restore a classifier with all weights from the file, without downloads or a configuration.

        Args:
            checkpoint_path: Path of a file that `read_checkpoint` accepts.
            map_location: Target device; None: the CPU.
            hparams_file: Must be None, since checkpoints store their hyperparameters.
            strict: Require that the weights match exactly; None: True.
            weights_only: Without effect, since checkpoints are always loaded with weights only.
            kwargs: Hyperparameters that override those of the file.

        Raises:
            ConfigError: The file is not the checkpoint of a classifier, is damaged, or holds an invalid value.
        """
        if hparams_file is not None or not isinstance(checkpoint_path, str | os.PathLike):
            raise ConfigError(
                f"{cls.__name__}.load_from_checkpoint requires the path of a checkpoint and no hparams_file, since "
                "checkpoints store their hyperparameters. Pass a path instead of an open file, and omit hparams_file."
            )
        path = Path(checkpoint_path)
        module = cls.from_content(read_checkpoint(path), path, strict is not False, **kwargs)
        return module.to(torch.device("cpu" if map_location is None else map_location))

    @classmethod
    def from_content(cls, content: dict[str, Any], path: Path, strict: bool = True, **kwargs: Any) -> Self:  # noqa: ANN401
        """Restore a classifier from content that `read_checkpoint` returned, or from a member of an ensemble.

        Args:
            content: The content.
            path: The file, for error messages.
            strict: Require that the weights match exactly.
            kwargs: Hyperparameters that override those of the content.

        Raises:
            ConfigError: The content is not that of a classifier, or an ensemble.
        """
        settings = {**_require_settings(content, path), **kwargs}
        if strict:
            _require_match(cls, settings, content["state_dict"], path)
        try:
            module = cls.from_hyperparameters(**settings)
            module.on_load_checkpoint(content)
            module.load_state_dict(content["state_dict"], strict=strict)
        except _UNBUILDABLE as error:
            raise _unrestorable(path, str(error)) from error
        return module


def _require_settings(content: dict[str, Any], path: Path) -> dict[str, Any]:
    if MEMBERS in content:
        raise _unrestorable(path, "it is an ensemble, which pneumo.load_model opens")
    if "state_dict" not in content:
        raise _unrestorable(path, "it holds no weights")
    try:
        settings = check_hyperparameters(content["hyper_parameters"], ("architecture", "classes", "image_size"))
    except HyperparameterError as error:
        raise _unrestorable(path, str(error)) from error
    return {name: value for name, value in settings.items() if name != "weights"}


def _require_match(cls: type[CheckpointModule], settings: dict[str, Any], state: dict[str, Tensor], path: Path) -> None:
    """Raise an error unless the weights match the network, before memory is allocated for it."""
    try:
        with torch.device("meta"):
            expected = cls.from_hyperparameters(**settings).state_dict()
    except _UNBUILDABLE:
        return  # some networks require real tensors; other errors occur again during restoration
    both = ((name, expected[name], state[name]) for name in expected.keys() & state.keys())
    # Training with trainer.precision=bf16-true stores weights in half precision.
    mismatched = {name for name, a, b in both if (a.shape, a.is_floating_point()) != (b.shape, b.is_floating_point())}
    for fault, names in (
        ("missing", expected.keys() - state.keys()),
        ("unexpected", state.keys() - expected.keys()),
        ("with another shape or type", mismatched),
    ):
        if names:
            shown = ", ".join(sorted(names)[:3])
            counts = f"its {len(state)} weights do not match the {len(expected)} of the network"
            raise _unrestorable(path, f"{counts}: {len(names)} {fault} ({shown[:200]!a})")


def _unrestorable(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"{path} cannot be loaded as a classifier: {short_line(reason, 300)}. Use a checkpoint written by this "
        "version of pneumo or an earlier one, such as RUN/checkpoints/best.ckpt."
    )
