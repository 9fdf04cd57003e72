"""Checks of the `_target_` classes of a configuration; failures of constructors become user errors."""

import math
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import InstantiationException
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from pneumo.common.text import short_line
from pneumo.config.checks import class_nodes, resolve
from pneumo.config.signatures import TargetType, check_target
from pneumo.data.augmentation import Augmentation
from pneumo.data.datamodule import ChestXrayDataModule
from pneumo.errors import ConfigError, PneumoError
from pneumo.models.fine_tuning import OneCycle

_TARGET_TYPES = {
    "data": TargetType((ChestXrayDataModule,), given=("augmentation", "pin_memory")),
    "augment": TargetType((Augmentation,)),
    "optimizer": TargetType((Optimizer,), deferred=(Optimizer,), first_argument="params"),
    "scheduler": TargetType((LRScheduler, OneCycle), deferred=(LRScheduler,), first_argument="optimizer"),
    "trainer": TargetType((Trainer,)),
    "callbacks": TargetType((Callback,)),
    "logger": TargetType((Logger,)),
}
# Raised by constructors for invalid arguments; any other error keeps its traceback.
# fmt: off
_ARGUMENT_ERRORS = (
    InstantiationException, MisconfigurationException, TypeError, ValueError, AttributeError, ArithmeticError,
    AssertionError, LookupError, RuntimeError, MemoryError,
)
# fmt: on


def check_targets(cfg: DictConfig) -> None:
    """Check the `_target_` classes of a configuration and their arguments before instantiating any."""
    settings = resolve(cfg)
    for key, node in class_nodes(settings).items():
        check_target(key, node, _TARGET_TYPES[key.partition(".")[0]], settings)


@contextmanager
def config_errors(key: str) -> Iterator[None]:
    """Convert errors of configured classes, such as invalid arguments, to a ConfigError for `key`."""
    try:
        yield
    except _ARGUMENT_ERRORS as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
        *_, (frame, _) = traceback.walk_tb(cause.__traceback__)
        module = str(frame.f_globals.get("__name__"))
        own = module.startswith("pneumo.") and module != __name__  # raised in pneumo, not in calls from this module
        if isinstance(cause, PneumoError) or own:
            raise cause from cause.__cause__
        reason = short_line(cause, 300).rstrip(".") or type(cause).__name__
        raise ConfigError(
            f"`{key}` cannot be built from its configuration: {reason}. Print its values with `--cfg job --package "
            f"{key}`, and compare them with the documentation of its _target_."
        ) from error


def require_instance(value: object, kind: type) -> None:
    """Raise a TypeError if a value returned by a configured class or function is not an instance of `kind`."""
    if not isinstance(value, kind):
        raise TypeError(f"it returns a {type(value).__qualname__}, not a {kind.__module__}.{kind.__qualname__}")


def try_schedule(schedule: LRScheduler, optimizer: Optimizer, steps: int) -> None:
    """Raise a ValueError if a learning rate becomes negative, infinite or NaN."""
    for step in range(steps):
        if any(not 0 <= group["lr"] < math.inf for group in optimizer.param_groups):
            rate = optimizer.param_groups[0]["lr"]
            raise ValueError(f"after {step} steps the learning rate is {rate:g}; it must be finite and at least 0")
        optimizer.step(lambda: 0.0)
        if isinstance(schedule, ReduceLROnPlateau):
            schedule.step(1.0)
        else:
            schedule.step()
