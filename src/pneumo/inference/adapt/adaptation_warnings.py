"""Warnings about the results of an adaptation."""

from __future__ import annotations

from typing import Any

from pneumo.metrics.adaptation_effect import AUROC

_FEW_IMAGES = 100  # below this, intervals of cross-fitted predictions are too short; see docs/EXTERNAL.md
_LARGE_DROP = 0.1  # of sensitivity or specificity
_SAFE_TARGET = 0.95


def list_warnings(record: dict[str, Any], unknown_patients: int) -> list[str]:
    """Return the reasons not to rely on an adaptation, one paragraph each.

    Args:
        record: Record of the adaptation; see `pneumo.models.adaptation_record`.
        unknown_patients: Number of images whose patient is unknown.
    """
    warnings = [
        _unknown_patients(record, unknown_patients),
        _few_images(record),
        _chance_level(record),
        _uncertain_gain(record),
        *(_drop(record, metric) for metric in ("sensitivity", "specificity")),
    ]
    return [text for text in warnings if text]


def _unknown_patients(record: dict[str, Any], unknown: int) -> str:
    if not unknown:
        return ""
    return (
        f"The patient of {unknown:,} of {record['images']:,} images is unknown; each counts as one "
        "patient. With several images of a patient, the intervals are too narrow: add a column patient."
    )


def _few_images(record: dict[str, Any]) -> str:
    if record["images"] >= _FEW_IMAGES:
        return ""
    return (
        f"The adaptation has {record['images']:,} images: below {_FEW_IMAGES}, the cross-fitted intervals are too "
        "short (docs/EXTERNAL.md, Limits). Label more images before you rely on the effect."
    )


def _chance_level(record: dict[str, Any]) -> str:
    area = record["metrics"]["before"][AUROC]
    if area is None or area[1] > 0.5:
        return ""
    return (
        f"The network may rank the images of {record['data']} no better than chance: the 95 % interval of its AUROC is "
        f"{area[1]:.3f} to {area[2]:.3f}. Then no threshold makes it useful there."
    )


def _uncertain_gain(record: dict[str, Any]) -> str:
    value, low, high = record["metrics"]["change"]["balanced_accuracy"]
    if low > 0:
        return ""
    change = f"{value:+.3f} ({low:+.3f} to {high:+.3f})"
    if high < 0:
        return f"The balanced accuracy is lower with the new threshold: it changes by {change}. Use another --rule."
    return (
        f"The change of the balanced accuracy, {change}, is not significant: its interval contains 0, so the new "
        "threshold may be no better. Label more images, or keep the original checkpoint."
    )


def _drop(record: dict[str, Any], metric: str) -> str:
    before, after = (record["metrics"][part][metric][0] for part in ("before", "after"))
    if before - after <= _LARGE_DROP:
        return ""
    drop = f"The {metric} drops from {before:.3f} to {after:.3f} with the new threshold"
    if record["rule"] != metric:
        return f"{drop}. Use --rule {metric} --target {_SAFE_TARGET} to prevent this."
    return f"{drop} of --rule {metric} --target {record['target']:g}. Use a higher --target, or label more images."
