"""Stored states of optimizers and schedules, compared with those of the run that resumes from them."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from pneumo.models.classifier import Classifier
from pneumo.models.fine_tuning import MakeOptimizer, OneCycle
from pneumo.state_forms import (
    require,
    require_count,
    require_dict,
    require_equal,
    require_form,
    require_tensor,
    show,
)

_MOVING = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch", "_last_lr")  # in ReduceLROnPlateau


@dataclass(frozen=True)
class Place:
    """How far training has come.

    Attributes:
        epochs: That were trained.
        steps: Of the optimizer, as Lightning counts them.
        scheduled: Steps of the schedule.
        all_epochs: Of the whole run.
        exact: Whether these alone set the rates; else rates need only be numbers.
    """

    epochs: int
    steps: int
    scheduled: int
    all_epochs: int
    exact: bool


def require_optimization(checkpoint: dict[str, Any], classifier: Classifier, place: Place) -> None:
    """Raise a FormError unless optimizer and schedule are where training has come to.

    Args:
        checkpoint: To resume from.
        classifier: Which is trained.
        place: How far.
    """
    assert classifier.make_optimizer is not None
    optimizer = classifier.build_optimizer()
    schedules = _require_list(checkpoint, "lr_schedulers", 0 if classifier.make_scheduler is None else 1)
    if schedules:
        schedule = _make_schedule(classifier, optimizer, place)
        # That one follows the losses, and Lightning saves before, or for one epoch without, its step.
        place = replace(place, exact=place.exact and not isinstance(schedule, ReduceLROnPlateau))
        if place.exact:
            _step(schedule, place, place.steps if isinstance(classifier.make_scheduler, OneCycle) else place.epochs)
        _require_schedule(require_dict(schedules[0], "lr_schedulers"), schedule, place)
    (state,) = _require_list(checkpoint, "optimizer_states", 1)
    state = require_dict(state, "optimizer_states")
    require(state.keys() == {"state", "param_groups"}, "optimizer_states must have state and param_groups")
    _require_groups(state["param_groups"], optimizer.state_dict()["param_groups"], place.exact)
    _require_moments(state["state"], optimizer, classifier.make_optimizer)


def state_indices(checkpoint: dict[str, Any]) -> set[object]:
    """Return the indices of the parameters that an optimizer's state is stored of."""
    (state,) = _require_list(checkpoint, "optimizer_states", 1)
    moments = require_dict(state, "optimizer_states").get("state")
    require(isinstance(moments, dict), "optimizer_states.state is no dictionary")
    assert isinstance(moments, dict)
    return {*moments}


def _require_list(checkpoint: dict[str, Any], name: str, length: int) -> list[Any]:
    found = checkpoint.get(name)
    require(isinstance(found, list) and len(found) == length, f"{name} must be a list of {length}")
    assert isinstance(found, list)
    return found


def _make_schedule(classifier: Classifier, optimizer: Optimizer, place: Place) -> LRScheduler:
    assert classifier.make_scheduler is not None
    if isinstance(classifier.make_scheduler, OneCycle):
        return classifier.make_scheduler(optimizer, place.steps // place.epochs * place.all_epochs)
    return classifier.make_scheduler(optimizer)


def _step(schedule: LRScheduler, place: Place, steps: int) -> None:
    require(place.scheduled == steps, f"{place.scheduled} steps of the schedule are not {steps}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the optimizer took no step
        for _ in range(steps):
            schedule.step()


def _require_schedule(stored: dict[str, Any], schedule: LRScheduler, place: Place) -> None:
    expected = schedule.state_dict()
    # Restoring sets each as an attribute. Versions of PyTorch differ in some, which then stay as they are.
    require(stored.keys() <= expected.keys(), f"lr_schedulers has {sorted(stored.keys() - expected.keys())[:3]}")
    require_equal(stored.get("last_epoch"), place.scheduled, "lr_schedulers.last_epoch")
    for key, value in stored.items():
        if place.exact or (isinstance(schedule, ReduceLROnPlateau) and key not in _MOVING):
            require_equal(value, expected[key], f"lr_schedulers.{key}")
        elif not isinstance(expected[key], list | dict):
            require_form(value, expected[key], f"lr_schedulers.{key}")


def _require_groups(stored: object, expected: list[dict[str, Any]], exact: bool) -> None:
    name = "optimizer_states.param_groups"
    require(isinstance(stored, list) and len(stored) == len(expected), f"{name} must be a list of {len(expected)}")
    assert isinstance(stored, list)
    for group, form in zip(stored, expected, strict=True):
        require_dict(group, name)
        # Switches that a version of PyTorch does not store have defaults, other settings have none.
        needed = {key for key, value in form.items() if not isinstance(value, bool | None)}
        require(needed <= group.keys() <= form.keys(), f"{name} must have {', '.join(form)}")
        for key, value in group.items():
            if exact or key == "params" or isinstance(form[key], bool | None):
                require_equal(value, form[key], f"{name}.{key}")
            elif not isinstance(form[key], list | tuple):
                require_form(value, form[key], f"{name}.{key}")


def _require_moments(stored: object, optimizer: Optimizer, make: MakeOptimizer) -> None:
    name = "optimizer_states.state"
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    require(isinstance(stored, dict), f"{name} is no dictionary")
    assert isinstance(stored, dict)
    forms, steps = _moment_forms(make, parameters), set[str]()
    for index, moments in stored.items():
        require_count(index, f"an index of {name}", len(parameters) - 1)
        own = require_dict(moments, f"{name}.{index}")
        if forms is not None:
            require_form({key: None for key in own}, {key: None for key in forms[index]}, f"{name}.{index}")
        for key, value in own.items():
            if forms is not None:
                require_form(value, forms[index][key], f"{name}.{index}.{key}")
            elif isinstance(value, Tensor):
                require_tensor(value, value, f"{name}.{index}.{key}")
        steps.add(show(own["step"].item() if isinstance(own.get("step"), Tensor) else own.get("step")))
    require(len(steps) <= 1, f"{name} has parameters after {', '.join(sorted(steps)[:5])} steps")


def _moment_forms(make: MakeOptimizer, parameters: Sequence[Tensor]) -> list[dict[str, Any]] | None:
    """Return what the optimizer stores of each parameter, without memory for it; None if that needs real gradients."""
    twins = [torch.nn.Parameter(torch.empty_like(parameter, device="meta")) for parameter in parameters]
    for twin in twins:
        twin.grad = torch.empty_like(twin)
    try:
        optimizer = make(iter(twins))
        for group in optimizer.param_groups:
            group |= {key: False for key in ("fused", "foreach") if key in group}  # no kernels without a device
        optimizer.step()
    except (RuntimeError, NotImplementedError, TypeError, ValueError):  # of optimizers that read values
        return None
    return [dict(optimizer.state.get(twin, {})) for twin in twins]
