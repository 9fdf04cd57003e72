"""Forms of stored state, optimizers' and schedules' too: compared with what the present run would store."""

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
from pneumo.config.constraints import Rule, is_number, is_whole
from pneumo.models.classifier import Classifier
from pneumo.models.fine_tuning import MakeOptimizer, OneCycle

_SHOWN = 80  # characters of a value
_MISSING = Ellipsis  # of a key that is not there; no checkpoint of plain types holds it
NUMBER = Rule(is_number, "a finite number")
TEXT = Rule(lambda value: isinstance(value, str), "text")
ABSENT = Rule(lambda value: value is _MISSING, "absent from a training state")
ANYTHING = Rule(lambda value: value is not _MISSING, "there")
SCALAR = Rule(lambda value: isinstance(value, Tensor) and is_dense(value) and not value.ndim, "a tensor of one number")
_SINGLE = Rule(lambda value: isinstance(value, str | int | float | None) or SCALAR.holds(value), "a single value")
_MOVING = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch", "_last_lr")  # in ReduceLROnPlateau
_GROUPS, _MOMENTS = "optimizer_states.param_groups", "optimizer_states.state"


class FormError(Exception):
    """Stored state is not what a run would have stored; the text names the key and the rule."""


def between(least: float, most: float, whole: bool = False) -> Rule:
    """Return the rule of a finite number, which may have to be a whole one."""
    words = f"a {'whole ' if whole else ''}number from {least} to {most}"
    return Rule(lambda value: is_number(value) and least <= value <= most and (is_whole(value) or not whole), words)


def tensor_of(number: float) -> Rule:
    """Return the rule of a tensor of one number, equal but for rounding."""
    return Rule(lambda value: SCALAR.holds(value) and _is_close(value.item(), number), f"a tensor of {number}")


def form_of(value: object) -> Any:  # noqa: ANN401 (whatever `compare` expects)
    """Return what any value of the same keys, types and shapes is expected to be; None stands for any single value."""
    if isinstance(value, Mapping):
        return {key: form_of(item) for key, item in value.items()}
    if isinstance(value, Tensor):
        return value
    if value is None:
        return _SINGLE
    if _is_number(value):
        return Rule(lambda stored: is_number(stored) or (_is_number(stored) and stored == value), NUMBER.text)
    return Rule(lambda stored: type(stored) is type(value), f"of type {type(value).__name__}")


def require(holds: bool, fault: str) -> None:
    """Raise a FormError with the fault unless a rule holds."""
    if not holds:
        raise FormError(fault)


def require_dict(value: object, name: str) -> dict[str, Any]:
    """Return a dictionary with text for keys, or raise a FormError."""
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return value
    raise FormError(f"{name} is no dictionary of names")


def compare(value: object, expected: object, name: str) -> None:
    """Raise a FormError unless a stored value is as expected.

    A `Rule` holds. A tensor stands for dense ones of its shape and kind with finite numbers. Mappings and lists have
    the same keys or length, and items as expected. All else is equal but for rounding.
    """
    if isinstance(expected, Rule):
        require(expected.holds(value), f"{name}={show(value)} must be {expected.text}")
    elif isinstance(expected, Mapping):
        if not isinstance(value, dict):
            raise FormError(f"{name} is no dictionary")
        other = [show(key) for key in (*value, *expected) if key not in value or key not in expected]
        require(not other, f"{name} lacks, or has in addition, {', '.join(other[:3])}")
        compare_items(value, expected, f"{name}.")
    elif isinstance(expected, list | tuple):
        if not isinstance(value, list | tuple) or len(value) != len(expected):
            raise FormError(f"{name}={show(value)} must be a list of {len(expected)}")
        for stored, item in zip(value, expected, strict=True):
            compare(stored, item, name)
    elif isinstance(expected, Tensor):
        _compare_tensor(value, expected, name)
    elif not _is_close(value, expected):
        raise FormError(f"{name}={show(value)} must be {show(expected)}")


def compare_items(stored: Mapping[Any, Any], expected: Mapping[Any, object], prefix: str) -> None:
    """Raise a FormError unless the items of these keys are as `compare` expects; there may be others."""
    for key, item in expected.items():
        compare(stored.get(key, _MISSING), item, f"{prefix}{key}")


def show(value: object) -> str:
    """Return a value as a short text on one line."""
    text = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else str(value)[: 10 * _SHOWN]
    text = re.sub(r"\s+", " ", text)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _compare_tensor(value: object, form: Tensor, name: str) -> None:
    if not isinstance(value, Tensor) or not is_dense(value) or value.shape != form.shape:
        raise FormError(f"{name}={show(value)} must be a dense tensor of shape {tuple(form.shape)}")
    kind, expected = ((each.is_floating_point(), each.is_complex(), each.dtype is torch.bool) for each in (value, form))
    require(kind == expected, f"{name} is {value.dtype}")
    require(bool(torch.isfinite(value).all()), f"{name} has values that are not finite")


def _is_number(value: object) -> bool:  # perhaps infinite
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_close(value: Any, expected: object) -> bool:  # noqa: ANN401 (whatever a checkpoint holds)
    if isinstance(expected, bool | str | None):
        return type(value) is type(expected) and bool(value == expected)
    if isinstance(expected, int | float):
        close = NUMBER.holds(value) and math.isclose(value, expected, rel_tol=1e-6, abs_tol=1e-12)
        return close or (type(value) is float and value == expected)  # both may be infinite
    return value is not _MISSING  # an object, which no checkpoint of plain types can hold


@dataclass(frozen=True)
class Progress:
    """How far training has come."""

    epochs: int  # that were trained
    steps: int  # of the optimizer, as Lightning counts them
    scheduled: int  # steps of the schedule
    all_epochs: int  # of the whole run
    exact: bool  # whether these alone set the rates; else rates need only be numbers


def require_optimization(checkpoint: dict[str, Any], classifier: Classifier, progress: Progress) -> None:
    """Raise a FormError unless optimizer and schedule are where training has come to."""
    assert classifier.make_optimizer is not None
    optimizer, make_scheduler = classifier.build_optimizer(), classifier.make_scheduler
    schedules = checkpoint.get("lr_schedulers")
    compare(schedules, [] if make_scheduler is None else [ANYTHING], "lr_schedulers")
    if schedules and make_scheduler is not None:
        if by_step := isinstance(make_scheduler, OneCycle):
            schedule = make_scheduler(optimizer, progress.steps // progress.epochs * progress.all_epochs)
        else:
            schedule = make_scheduler(optimizer)
        # That one follows the losses, and Lightning saves before, or for one epoch without, its step.
        progress = replace(progress, exact=progress.exact and not isinstance(schedule, ReduceLROnPlateau))
        if progress.exact:
            _step(schedule, progress, progress.steps if by_step else progress.epochs)
        _require_schedule(require_dict(schedules[0], "lr_schedulers"), schedule, progress)
    state = _stored_state(checkpoint)
    _require_groups(state["param_groups"], optimizer.state_dict()["param_groups"], progress.exact)
    _require_moments(state["state"], optimizer, classifier.make_optimizer)


def state_indices(checkpoint: dict[str, Any]) -> set[object]:
    """Return the indices of the parameters that an optimizer's state is stored of."""
    return {*_stored_state(checkpoint)["state"]}


def _stored_state(checkpoint: dict[str, Any]) -> dict[str, Any]:
    states = checkpoint.get("optimizer_states")
    compare(states, [ANYTHING], "optimizer_states")
    state = require_dict(states and states[0], "optimizer_states")
    require(state.keys() == {"state", "param_groups"}, "optimizer_states must have state and param_groups")
    require(isinstance(state["state"], dict), f"{_MOMENTS} is no dictionary")
    return state


def _step(schedule: LRScheduler, progress: Progress, steps: int) -> None:
    require(progress.scheduled == steps, f"{progress.scheduled} steps of the schedule are not {steps}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the optimizer took no step
        for _ in range(steps):
            schedule.step()


def _expected(value: object, exact: bool) -> Any:  # noqa: ANN401 (whatever `compare` expects)
    return value if exact else ANYTHING if isinstance(value, list | tuple | dict) else form_of(value)


def _require_schedule(stored: dict[str, Any], schedule: LRScheduler, progress: Progress) -> None:
    # Restoring sets each as an attribute. Versions of PyTorch differ in some, which then stay as they are.
    form, fixed = schedule.state_dict(), isinstance(schedule, ReduceLROnPlateau)
    require(stored.keys() <= form.keys(), f"lr_schedulers has {sorted(stored.keys() - form.keys())[:3]}")
    compare(stored.get("last_epoch"), progress.scheduled, "lr_schedulers.last_epoch")
    for key, value in stored.items():
        exact = progress.exact or (fixed and key not in _MOVING)
        compare(value, _expected(form[key], exact), f"lr_schedulers.{key}")


def _require_groups(stored: Any, forms: list[dict[str, Any]], exact: bool) -> None:  # noqa: ANN401 (whatever a checkpoint holds)
    compare(stored, [ANYTHING] * len(forms), _GROUPS)
    for group, form in zip(stored, forms, strict=True):
        # Switches that a version of PyTorch does not store have defaults, other settings have none.
        switches = {key for key, value in form.items() if isinstance(value, bool | None)}
        found = require_dict(group, _GROUPS).keys()
        require(form.keys() - switches <= found <= form.keys(), f"{_GROUPS} must have {', '.join(form)}")
        for key, value in group.items():
            fixed = exact or key == "params" or key in switches
            compare(value, _expected(form[key], fixed), f"{_GROUPS}.{key}")


def _require_moments(stored: dict[Any, Any], optimizer: Optimizer, make: MakeOptimizer) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    forms, steps = _moment_forms(make, parameters), set[str]()
    for index, moments in stored.items():
        known = type(index) is int and 0 <= index < len(parameters)
        require(known, f"{_MOMENTS} has the index {show(index)} of {len(parameters)} parameters")
        own = require_dict(moments, f"{_MOMENTS}.{index}")
        tensors = {key: value if isinstance(value, Tensor) else ANYTHING for key, value in own.items()}
        compare(own, tensors if forms is None else form_of(forms[index]), f"{_MOMENTS}.{index}")
        steps.add(show(own["step"].item() if isinstance(own.get("step"), Tensor) else own.get("step")))
    require(len(steps) <= 1, f"{_MOMENTS} has parameters after {', '.join(sorted(steps)[:5])} steps")


def _moment_forms(make: MakeOptimizer, parameters: Sequence[Tensor]) -> list[dict[str, Any]] | None:
    """Return what the optimizer stores of each parameter, without memory for it; None if that needs real gradients."""
    placeholders = [torch.nn.Parameter(torch.empty_like(parameter, device="meta")) for parameter in parameters]
    for placeholder in placeholders:
        placeholder.grad = torch.empty_like(placeholder)
    try:
        optimizer = make(iter(placeholders))
        for group in optimizer.param_groups:
            group |= {key: False for key in ("fused", "foreach") if key in group}  # no kernels without a device
        optimizer.step()
    except (RuntimeError, NotImplementedError, TypeError, ValueError):  # of optimizers that read values
        return None
    return [dict(optimizer.state.get(placeholder, {})) for placeholder in placeholders]
