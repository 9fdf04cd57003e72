"""Checks of stored optimizer and scheduler states against those of the run that resumes."""

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
from pneumo.training.state_forms import ANYTHING, compare, form_of, require, require_dict, show

_MOVING = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch", "_last_lr")  # in ReduceLROnPlateau
_GROUPS, _MOMENTS = "optimizer_states.param_groups", "optimizer_states.state"


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
    optimizer, make_scheduler = classifier.build_optimizer(), classifier.make_scheduler
    schedules = checkpoint.get("lr_schedulers")
    compare(schedules, [] if make_scheduler is None else [ANYTHING], "lr_schedulers")
    if schedules and make_scheduler is not None:
        if by_step := isinstance(make_scheduler, OneCycle):
            schedule = make_scheduler(optimizer, place.steps // place.epochs * place.all_epochs)
        else:
            schedule = make_scheduler(optimizer)
        # That one follows the losses, and Lightning saves before, or for one epoch without, its step.
        place = replace(place, exact=place.exact and not isinstance(schedule, ReduceLROnPlateau))
        if place.exact:
            _step(schedule, place, place.steps if by_step else place.epochs)
        _require_schedule(require_dict(schedules[0], "lr_schedulers"), schedule, place)
    state = _stored_state(checkpoint)
    _require_groups(state["param_groups"], optimizer.state_dict()["param_groups"], place.exact)
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


def _step(schedule: LRScheduler, place: Place, steps: int) -> None:
    require(place.scheduled == steps, f"{place.scheduled} steps of the schedule are not {steps}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the optimizer took no step
        for _ in range(steps):
            schedule.step()


def _expected(value: object, exact: bool) -> Any:  # noqa: ANN401 (whatever `compare` expects)
    return value if exact else ANYTHING if isinstance(value, list | tuple | dict) else form_of(value)


def _require_schedule(stored: dict[str, Any], schedule: LRScheduler, place: Place) -> None:
    # Restoring sets each as an attribute. Versions of PyTorch differ in some, which then stay as they are.
    form, fixed = schedule.state_dict(), isinstance(schedule, ReduceLROnPlateau)
    require(stored.keys() <= form.keys(), f"lr_schedulers has {sorted(stored.keys() - form.keys())[:3]}")
    compare(stored.get("last_epoch"), place.scheduled, "lr_schedulers.last_epoch")
    for key, value in stored.items():
        exact = place.exact or (fixed and key not in _MOVING)
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
