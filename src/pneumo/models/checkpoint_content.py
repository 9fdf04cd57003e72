"""Validation of the content of checkpoints, by key."""

from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from pneumo.common.tensor_files import is_dense
from pneumo.models.adaptation_record import is_adaptation
from pneumo.models.hyperparameters import check_hyperparameters, describe


class ContentError(Exception):
    """Invalid content of a checkpoint; the text is a clause with the reason."""


def validate_content(content: dict[str, Any]) -> None:
    """Validate the hyperparameters and all known keys of a checkpoint, and make the hyperparameters a dictionary.

    Raises:
        ContentError: A value is invalid.
        HyperparameterError: A hyperparameter is invalid or unknown.
    """
    content["hyper_parameters"] = check_hyperparameters(content["hyper_parameters"])
    for name, is_valid in _VALIDATORS.items():
        if name in content and not is_valid(content[name]):
            raise ContentError(f"the value of {name} is invalid ({describe(content[name])})")


def _is_state_dict(value: object) -> TypeGuard[dict[str, Tensor]]:
    return _has_string_keys(value) and all(isinstance(tensor, Tensor) and is_dense(tensor) for tensor in value.values())


def _has_string_keys(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict) and all(isinstance(name, str) for name in value)


def _is_config(value: object) -> bool:
    """Check the settings of a run; class folders must be inside a data set, since `pneumo export --data` reads them."""
    if not _has_string_keys(value):
        return False
    folders = value.get("data.classes", [])
    return isinstance(folders, list) and all(
        isinstance(folder, str | int) and not Path(str(folder)).is_absolute() and ".." not in Path(str(folder)).parts
        for folder in folders
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_metrics(value: object) -> bool:
    return _has_string_keys(value) and all(isinstance(number, int | float) for number in value.values())


def _is_ood_detector(value: object) -> bool:
    """Check the arguments of `OodDetector`: mean (P,), scale (P,) and components (components, P)."""
    if not _is_state_dict(value) or value.keys() != {"mean", "scale", "components"}:
        return False
    mean, scale, components = value["mean"], value["scale"], value["components"]
    return (
        all(tensor.dtype == torch.float32 and bool(tensor.isfinite().all()) for tensor in value.values())
        and (mean.ndim, components.ndim) == (1, 2)
        and mean.shape == scale.shape == components.shape[1:]
    )


def _is_validation(value: object) -> bool:
    """Check the outputs of a validation epoch: none, or index (N,) and logits (N, classes)."""
    if not _is_state_dict(value) or value.keys() not in (set(), {"index", "logits"}):
        return False
    if not value:
        return True
    index, logits = value["index"], value["logits"]
    if index.dtype != torch.int64 or not logits.is_floating_point():
        return False
    # Early versions squeezed the tensors of a single image.
    return index.numel() == 1 or ((index.ndim, logits.ndim) == (1, 2) and len(index) == len(logits))


def _is_internal_test(value: object) -> bool:
    """Check the internal test of a binary classifier: margin (N,), label (N,) and patient (N,)."""
    if not _is_state_dict(value) or value.keys() != {"margin", "label", "patient"}:
        return False
    margin, label, patient = value["margin"], value["label"], value["patient"]
    return (
        margin.ndim == 1
        and margin.shape == label.shape == patient.shape
        and (margin.dtype, label.dtype, patient.dtype) == (torch.float32, torch.int64, torch.int64)
        and bool(margin.isfinite().all() and ((label == 0) | (label == 1)).all() and (patient >= 0).all())
    )


_VALIDATORS = {
    "state_dict": _is_state_dict,
    "outliers": _is_ood_detector,
    "adaptation": is_adaptation,
    "validation": _is_validation,
    "internal_test": _is_internal_test,
    "metrics": _is_metrics,
    "config": _is_config,
    "epoch": _is_count,
    "global_step": _is_count,
}
