"""Classifiers restored from checkpoints, whose hyperparameters are checked before anything is built."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch
from lightning import LightningModule
from torch import Tensor

from pneumo.common.text import plain
from pneumo.errors import ConfigError, PneumoError
from pneumo.models.checkpoint_reader import read_checkpoint
from pneumo.models.hyperparameters import HyperparameterError, PredictionOptions, check_hyperparameters

if TYPE_CHECKING:
    from typing_extensions import Self

# What timm and torchvision raise for sizes and tags that an architecture does not support.
_REFUSED = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_UNBUILDABLE = (PneumoError, *_REFUSED)


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
            checkpoint_path: Of a file that `pneumo.training.checkpoints.read_checkpoint` accepts.
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
    for fault, names in (
        ("lacks", expected.keys() - state.keys()),
        ("has unknown", state.keys() - expected.keys()),
        ("has of another shape or type", _misfits(expected, state)),
    ):
        if names:
            shown = ", ".join(sorted(names)[:3])
            raise _unrestorable(path, f"of {len(expected)} weights it {fault} {len(names)} ({shown[:200]!a})")


def _misfits(expected: dict[str, Tensor], state: dict[str, Tensor]) -> set[str]:
    return {
        name
        for name in expected.keys() & state.keys()
        # Training with trainer.precision=bf16-true leaves weights of half precision.
        if expected[name].shape != state[name].shape
        or expected[name].is_floating_point() != state[name].is_floating_point()
    }


def _unrestorable(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"{path} cannot be opened as a classifier: {plain(reason, 300)}. Take a checkpoint that this "
        "version of pneumo or an earlier one wrote, such as RUN/checkpoints/best.ckpt."
    )
