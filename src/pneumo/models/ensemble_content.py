"""Content of ensembles: several checkpoints in one file, with a common operating point.

The key `members` contains the content of each member. The hyperparameters of an ensemble are the classes and the input
format of its members, the threshold and the margin. An adapted ensemble also has a temperature and an intercept.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pneumo.common.input_format import ADDED_CHOICES, InputFormat
from pneumo.errors import ConfigError
from pneumo.models.checkpoint_content import ContentError, validate_content
from pneumo.models.hyperparameters import (
    MAX_MEMBERS,
    HyperparameterError,
    PredictionOptions,
    check_hyperparameters,
)

MEMBERS = "members"
_MEMBER_KEYS = ("state_dict", "hyper_parameters", "outliers", "internal_test")  # what inference requires
_REQUIRED = ("architecture", "classes", "image_size")  # hyperparameters
_POINT = ("threshold", "margin", "temperature", "intercept")  # hyperparameters of ensembles, except those of the input


def drop_training_state(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a checkpoint without what `build_ensemble` ignores, such as the optimizer's state."""
    return {key: content[key] for key in (*_MEMBER_KEYS, MEMBERS, "adaptation", "config") if key in content}


def build_ensemble(checkpoints: Mapping[Path, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the content of an ensemble.

    Its threshold is the mean of its members' thresholds, and so is its margin; it is None if that of a member is. Of
    the runs' settings, the common ones are stored.

    Args:
        checkpoints: Contents of two or more checkpoints, by file.

    Raises:
        ConfigError: The checkpoints are too few or too many, one of them cannot be a member, or two differ in their
            classes or input formats.
    """
    if not 2 <= len(checkpoints) <= MAX_MEMBERS:
        raise ConfigError(
            f"An ensemble has 2 to {MAX_MEMBERS} members, not {len(checkpoints)}. Use another number of runs."
        )
    first, common = next(iter(checkpoints.items()))
    for path, content in checkpoints.items():
        try:
            _validate_member(content)
        except (ContentError, HyperparameterError) as error:
            raise ConfigError(
                f"{path} cannot be a member of an ensemble: {error}. Combine original checkpoints of runs, which are "
                "neither adapted nor ensembles; the result can be adapted."
            ) from error
        _require_same_input(first, common, path, content)
    inputs = _input_settings(common["hyper_parameters"])
    omitted = {name for name, (default, *_) in ADDED_CHOICES.items() if inputs[name] == default}
    points = [content["hyper_parameters"] for content in checkpoints.values()]
    margins = [point.get("margin") for point in points]
    thresholds = [point.get("threshold", PredictionOptions().threshold) for point in points]
    return {
        "hyper_parameters": {
            **{name: value for name, value in inputs.items() if name not in omitted},
            "threshold": float(np.float32(np.mean(thresholds))),
            "margin": None if None in margins else float(np.mean(margins)),
        },
        MEMBERS: [{key: each[key] for key in _MEMBER_KEYS if key in each} for each in checkpoints.values()],
        "config": _common_settings([content.get("config", {}) for content in checkpoints.values()]),
    }


def validate_ensemble(content: dict[str, Any]) -> None:
    """Validate the members of an ensemble whose other keys are valid, and that they have its classes and input format.

    Raises:
        ContentError: A value is invalid.
        HyperparameterError: A hyperparameter is missing.
    """
    parameters, members = check_hyperparameters(content["hyper_parameters"], _REQUIRED[1:]), content[MEMBERS]
    if unused := parameters.keys() - {"classes", *_input_settings(parameters), *_POINT}:
        raise ContentError(f"its hyperparameter {min(unused)} has no effect on an ensemble")
    if not isinstance(members, list) or not 2 <= len(members) <= MAX_MEMBERS or "state_dict" in content:
        raise ContentError(f"the value of {MEMBERS} must be a list of 2 to {MAX_MEMBERS} checkpoints")
    for number, member in enumerate(members, 1):
        try:
            _validate_member(member)
        except (ContentError, HyperparameterError) as error:
            raise ContentError(f"of member {number}, {error}") from error
        if difference := _find_difference(parameters, member["hyper_parameters"]):
            raise ContentError(f"member {number} has another {difference[0]}")


def _validate_member(content: Any) -> None:  # noqa: ANN401 (any value of a file)
    if not isinstance(content, dict) or "hyper_parameters" not in content:
        raise ContentError("it is not the content of a checkpoint")
    validate_content(content)
    if MEMBERS in content:
        raise ContentError("it is an ensemble itself")
    if "adaptation" in content:
        raise ContentError("it is adapted to one site")
    if "state_dict" not in content:
        raise ContentError("it holds no weights")
    check_hyperparameters(content["hyper_parameters"], _REQUIRED)


def _require_same_input(first: Path, common: Mapping[str, Any], path: Path, content: Mapping[str, Any]) -> None:
    if (difference := _find_difference(common["hyper_parameters"], content["hyper_parameters"])) is None:
        return
    name, expected, value = difference
    raise ConfigError(
        f"{path} has {name}={_format(value)}, but {first} has {name}={_format(expected)}. The members of an ensemble "
        "need the same classes and the same input format: image_size, crop_pct, aspect and histogram. Use runs with "
        f"the same {name}."
    )


def _find_difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """Return the first setting of the input in which hyperparameters differ, with both values."""
    pairs = ((name, value, _input_settings(second)[name]) for name, value in _input_settings(first).items())
    return next((pair for pair in pairs if pair[1] != pair[2]), None)


def _input_settings(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return classes and input format as hyperparameters."""
    optional = {name: parameters.get(name, default) for name, default in InputFormat._field_defaults.items()}
    return {"classes": list(parameters["classes"]), "image_size": parameters["image_size"], **optional}


def _format(value: object) -> str:
    return "[" + ", ".join(map(str, value)) + "]" if isinstance(value, list) else str(value)


def _common_settings(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first, *others = configs
    return {
        name: value for name, value in first.items() if all(name in other and other[name] == value for other in others)
    }
