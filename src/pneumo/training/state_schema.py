"""Validation of stored state, such as that of optimizer and scheduler, against the state of the current run."""

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from pneumo.common.tensor_files import is_dense
from pneumo.config.constraints import Rule, is_integer, is_number
from pneumo.models.classifier import Classifier
from pneumo.models.fine_tuning import MakeOptimizer, OneCycle

_MAX_CHARACTERS = 80  # of a value in a message
_MISSING = Ellipsis  # value of a missing key; no checkpoint of plain types contains it
NUMBER = Rule(is_number, "a finite number")
TEXT = Rule(lambda value: isinstance(value, str), "text")
ABSENT = Rule(lambda value: value is _MISSING, "absent from a training state")
ANYTHING = Rule(lambda value: value is not _MISSING, "present")
SCALAR = Rule(lambda value: isinstance(value, Tensor) and is_dense(value) and not value.ndim, "a scalar tensor")
_SINGLE = Rule(lambda value: isinstance(value, str | int | float | None) or SCALAR.holds(value), "a single value")
_VARIABLE = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch", "_last_lr")  # in ReduceLROnPlateau
_GROUPS, _MOMENTS = "optimizer_states.param_groups", "optimizer_states.state"


class StateError(Exception):
    """Stored state that the run could not have written; the message names the key and the rule."""


def between(low: float, high: float, whole: bool = False) -> Rule:
    """Return the rule for a finite number in a range, optionally a whole one."""
    text = f"a {'whole ' if whole else ''}number from {low} to {high}"
    return Rule(lambda value: is_number(value) and low <= value <= high and (is_integer(value) or not whole), text)


def scalar_tensor(number: float) -> Rule:
    """Return the rule for a scalar tensor that equals a number up to rounding."""
    return Rule(lambda value: SCALAR.holds(value) and _is_close(value.item(), number), f"a scalar tensor of {number}")


def schema_of(value: object) -> Any:  # noqa: ANN401 (any schema for `compare`)
    """Return the schema for values with the same keys, types and shapes as `value`; None allows any single value."""
    if isinstance(value, Mapping):
        return {key: schema_of(item) for key, item in value.items()}
    if isinstance(value, Tensor):
        return value
    if value is None:
        return _SINGLE
    if _is_number(value):
        return Rule(lambda stored: is_number(stored) or (_is_number(stored) and stored == value), NUMBER.text)
    return Rule(lambda stored: type(stored) is type(value), f"of type {type(value).__name__}")


def require(condition: bool, message: str) -> None:
    """Raise a StateError with the message unless a condition is true."""
    if not condition:
        raise StateError(message)


def require_dict(value: object, name: str) -> dict[str, Any]:
    """Return a value that is a dictionary with string keys; raise a StateError for any other."""
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return value
    raise StateError(f"{name} is not a dictionary with string keys")


def compare(value: object, expected: object, name: str) -> None:
    """Raise a StateError unless a stored value matches a schema.

    A `Rule` must hold. A tensor matches dense, finite tensors of its shape and kind of dtype. Mappings and lists need
    the same keys or length, and matching items. Anything else must be equal up to rounding.
    """
    if isinstance(expected, Rule):
        require(expected.holds(value), f"{name}={format_value(value)} must be {expected.text}")
    elif isinstance(expected, Mapping):
        if not isinstance(value, dict):
            raise StateError(f"{name} is not a dictionary")
        unmatched = [format_value(key) for key in (*value, *expected) if key not in value or key not in expected]
        require(not unmatched, f"{name} has missing or unexpected keys: {', '.join(unmatched[:3])}")
        compare_items(value, expected, f"{name}.")
    elif isinstance(expected, list | tuple):
        if not isinstance(value, list | tuple) or len(value) != len(expected):
            raise StateError(f"{name}={format_value(value)} must be a list of {len(expected)} items")
        for stored, item in zip(value, expected, strict=True):
            compare(stored, item, name)
    elif isinstance(expected, Tensor):
        _compare_tensor(value, expected, name)
    elif not _is_close(value, expected):
        raise StateError(f"{name}={format_value(value)} must be {format_value(expected)}")


def compare_items(stored: Mapping[Any, Any], expected: Mapping[Any, object], prefix: str) -> None:
    """Raise a StateError unless the items of the expected keys match; other keys are ignored."""
    for key, item in expected.items():
        compare(stored.get(key, _MISSING), item, f"{prefix}{key}")


def format_value(value: object) -> str:
    """Format a value as short text on one line."""
    text = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else str(value)
    text = re.sub(r"\s+", " ", text[: 10 * _MAX_CHARACTERS])
    return text if len(text) <= _MAX_CHARACTERS else f"{text[: _MAX_CHARACTERS - 3]}..."


def _compare_tensor(value: object, expected: Tensor, name: str) -> None:
    if not isinstance(value, Tensor) or not is_dense(value) or value.shape != expected.shape:
        raise StateError(f"{name}={format_value(value)} must be a dense tensor of shape {tuple(expected.shape)}")
    kinds = [(each.is_floating_point(), each.is_complex(), each.dtype is torch.bool) for each in (value, expected)]
    require(kinds[0] == kinds[1], f"{name} must not have the dtype {value.dtype}")
    require(bool(torch.isfinite(value).all()), f"{name} has values that are not finite")


def _is_number(value: object) -> bool:  # may be infinite
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_close(value: Any, expected: object) -> bool:  # noqa: ANN401 (any content of a checkpoint)
    if isinstance(expected, bool | str | None):
        return type(value) is type(expected) and bool(value == expected)
    if isinstance(expected, int | float):
        close = NUMBER.holds(value) and math.isclose(value, expected, rel_tol=1e-6, abs_tol=1e-12)
        return close or (type(value) is float and value == expected)  # both may be infinite
    return value is not _MISSING  # any other object, which a checkpoint of plain types cannot contain


@dataclass(frozen=True)
class Progress:
    """Progress of training."""

    epochs: int  # trained epochs
    steps: int  # optimizer steps, as Lightning counts them
    scheduled: int  # scheduler steps
    all_epochs: int  # epochs of the whole run
    exact: bool  # these numbers determine the learning rates; otherwise any rate is valid


def require_optimization(checkpoint: dict[str, Any], classifier: Classifier, progress: Progress) -> None:
    """Raise a StateError unless the states of optimizer and scheduler match the progress of training."""
    assert classifier.make_optimizer is not None
    optimizer, make_scheduler = classifier.build_optimizer(), classifier.make_scheduler
    schedules = checkpoint.get("lr_schedulers")
    compare(schedules, [] if make_scheduler is None else [ANYTHING], "lr_schedulers")
    if schedules and make_scheduler is not None:
        if by_step := isinstance(make_scheduler, OneCycle):
            schedule = make_scheduler(optimizer, progress.steps // progress.epochs * progress.all_epochs)
        else:
            schedule = make_scheduler(optimizer)
        # ReduceLROnPlateau depends on the losses, and Lightning may save before its step.
        progress = replace(progress, exact=progress.exact and not isinstance(schedule, ReduceLROnPlateau))
        if progress.exact:
            _step(schedule, progress, progress.steps if by_step else progress.epochs)
        _require_schedule(require_dict(schedules[0], "lr_schedulers"), schedule, progress)
    state = _stored_state(checkpoint)
    _require_groups(state["param_groups"], optimizer.state_dict()["param_groups"], progress.exact)
    _require_moments(state["state"], optimizer, classifier.make_optimizer)


def state_indices(checkpoint: dict[str, Any]) -> set[object]:
    """Return the indices of the parameters with stored optimizer state."""
    return {*_stored_state(checkpoint)["state"]}


def _stored_state(checkpoint: dict[str, Any]) -> dict[str, Any]:
    states = checkpoint.get("optimizer_states")
    compare(states, [ANYTHING], "optimizer_states")
    state = require_dict(states and states[0], "optimizer_states")
    require(state.keys() == {"state", "param_groups"}, "optimizer_states must have state and param_groups")
    require(isinstance(state["state"], dict), f"{_MOMENTS} is not a dictionary")
    return state


def _step(schedule: LRScheduler, progress: Progress, steps: int) -> None:
    require(progress.scheduled == steps, f"{progress.scheduled} scheduler steps instead of {steps}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a scheduler step before any optimizer step
        for _ in range(steps):
            schedule.step()


def _expected(value: object, exact: bool) -> Any:  # noqa: ANN401 (any schema for `compare`)
    return value if exact else ANYTHING if isinstance(value, list | tuple | dict) else schema_of(value)


def _require_schedule(stored: dict[str, Any], schedule: LRScheduler, progress: Progress) -> None:
    # Every stored key becomes an attribute of the scheduler. Keys that differ between PyTorch versions may be missing.
    own, fixed = schedule.state_dict(), isinstance(schedule, ReduceLROnPlateau)
    unexpected = sorted(stored.keys() - own.keys())
    require(not unexpected, f"lr_schedulers has unexpected keys: {', '.join(unexpected[:3])}")
    compare(stored.get("last_epoch"), progress.scheduled, "lr_schedulers.last_epoch")
    for key, value in stored.items():
        exact = progress.exact or (fixed and key not in _VARIABLE)
        compare(value, _expected(own[key], exact), f"lr_schedulers.{key}")


def _require_groups(stored: Any, own_groups: list[dict[str, Any]], exact: bool) -> None:  # noqa: ANN401 (any content of a checkpoint)
    compare(stored, [ANYTHING] * len(own_groups), _GROUPS)
    for group, own in zip(stored, own_groups, strict=True):
        # Switches that older versions of PyTorch do not store have defaults; other settings have none.
        switches = {key for key, value in own.items() if isinstance(value, bool | None)}
        keys = require_dict(group, _GROUPS).keys()
        require(own.keys() - switches <= keys <= own.keys(), f"{_GROUPS} must have {', '.join(own)}")
        for key, value in group.items():
            fixed = exact or key == "params" or key in switches
            compare(value, _expected(own[key], fixed), f"{_GROUPS}.{key}")


def _require_moments(stored: dict[Any, Any], optimizer: Optimizer, make: MakeOptimizer) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    schemas, steps = _moment_schemas(make, parameters), set[str]()
    for index, moments in stored.items():
        known = type(index) is int and 0 <= index < len(parameters)
        require(known, f"{_MOMENTS} has the invalid index {format_value(index)} for {len(parameters)} parameters")
        own = require_dict(moments, f"{_MOMENTS}.{index}")
        tensors = {key: value if isinstance(value, Tensor) else ANYTHING for key, value in own.items()}
        compare(own, tensors if schemas is None else schema_of(schemas[index]), f"{_MOMENTS}.{index}")
        steps.add(format_value(own["step"].item() if isinstance(own.get("step"), Tensor) else own.get("step")))
    require(len(steps) <= 1, f"{_MOMENTS} has parameters with different steps: {', '.join(sorted(steps)[:5])}")


def _moment_schemas(make: MakeOptimizer, parameters: Sequence[Tensor]) -> list[dict[str, Any]] | None:
    """Return the optimizer's state for each parameter on the meta device; None if it requires real gradients."""
    placeholders = [torch.nn.Parameter(torch.empty_like(parameter, device="meta")) for parameter in parameters]
    for placeholder in placeholders:
        placeholder.grad = torch.empty_like(placeholder)
    try:
        optimizer = make(iter(placeholders))
        for group in optimizer.param_groups:
            # Both lack kernels for the meta device.
            group |= {key: False for key in ("fused", "foreach") if key in group}
        optimizer.step()
    except (RuntimeError, NotImplementedError, TypeError, ValueError):  # optimizers that read values
        return None
    return [dict(optimizer.state.get(placeholder, {})) for placeholder in placeholders]
