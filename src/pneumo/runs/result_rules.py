"""Rules of results.json: keys, types and ranges of values, and relations between them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from pneumo.common import SUBTYPES
from pneumo.config.constraints import FLAG, Rule, is_integer, is_number, one_of
from pneumo.metrics.definitions import METRICS
from pneumo.metrics.subtypes import NO_IMAGE, SUBTYPE_METRICS

# fmt: off
# Required in every results.json; files of earlier versions may lack metrics that were added later.
_REQUIRED_NAMES = (
    "status", "model", "optimizer", "seed", "experiment", "data", "image_size", "epochs", "best_epoch", "batch_size",
    "precision", "device", "parameters_total", "parameters_trainable", "train_accuracy", "test_accuracy",
    "test_accuracy_ci_low", "test_accuracy_ci_high", "test_sensitivity", "test_specificity", "test_balanced_accuracy",
    "test_auroc", "test_auprc", "test_f1", "test_mcc", "test_ece", "test_brier", "test_true_positives",
    "test_false_positives", "test_true_negatives", "test_false_negatives", "threshold", "collapsed", "train_seconds",
    "total_seconds", "samples_per_second", "peak_memory_bytes", "config_hash", "data_hash", "git_commit",
    "torch_version", "pneumo_version", "feature_cache", "cache_seconds", "val_loss",
    "val_accuracy", "val_auroc", "settings_hash", "task", "split", "fold", "folds", "temperature", "threshold_rule",
    "val_sensitivity", "val_specificity", "val_balanced_accuracy",
    *(f"test_{name}_ci_{end}"
      for name in ("auroc", "sensitivity", "specificity", "balanced_accuracy", "auprc", "f1", "mcc", "ece", "brier")
      for end in ("low", "high")),
    *(f"test_{name}{end}"
      for name in (*(f"sensitivity_{subtype}" for subtype in SUBTYPES), "auroc_bacterial_viral")
      for end in ("", "_ci_low", "_ci_high")),
)
# fmt: on
_ADDED = tuple(name for name in METRICS if f"test_{name}" not in _REQUIRED_NAMES)
# The order of keys in results.json. Users' scripts read them: add names, but never change one.
RESULT_NAMES = (
    *_REQUIRED_NAMES,
    *(f"{stage}_{name}" for name in _ADDED for stage in ("train", "val", "test")),
    *(f"test_{name}_ci_{end}" for name in _ADDED for end in ("low", "high")),
)

_MAX_CHARACTERS = 500
_TOLERANCE = 1e-5  # float32 rounding
_MAX_NUMBER = 2**63 - 1
_CHOICES = {"status": ("done", "partial"), "task": ("pneumonia", "subtype", "multiclass")}
_FLAGS = ("collapsed", "feature_cache")
# fmt: off
_TEXTS = (
    "model", "optimizer", "experiment", "data", "precision", "device", "config_hash", "data_hash", "git_commit",
    "torch_version", "pneumo_version", "settings_hash", "split", "threshold_rule",
)
_COUNTS = {  # smallest value of each
    "seed": 0, "image_size": 1, "epochs": 0, "best_epoch": 0, "batch_size": 1, "parameters_total": 0,
    "parameters_trainable": 0, "test_true_positives": 0, "test_false_positives": 0, "test_true_negatives": 0,
    "test_false_negatives": 0, "peak_memory_bytes": 0, "fold": -1, "folds": -1,
}
_AMOUNTS = ("train_seconds", "total_seconds", "samples_per_second", "cache_seconds", "val_loss", "temperature")
# fmt: on


def find_error(results: object) -> str | None:
    """Describe the first fault in the content of a results.json; return None if it is valid.

    Keys of later versions are ignored.
    """
    if not isinstance(results, dict):
        return "it is not a mapping"
    if missing := [name for name in _REQUIRED_NAMES if name not in results]:
        return f"it has no {missing[0]}" + (f" and lacks {len(missing) - 1} other keys" if len(missing) > 1 else "")
    for name in filter(results.__contains__, RESULT_NAMES):
        if not (rule := _rule(name)).holds(value := results[name]):
            return f"its {name}={_shorten(value)} is not {rule.text}"
    return _find_contradiction(results)


def _find_contradiction(results: Mapping[str, Any]) -> str | None:
    """Compare the rates of a binary test with the counts that they are computed from."""
    names = ("true_positives", "false_positives", "true_negatives", "false_negatives")
    counts = tuple(results[f"test_{name}"] for name in names)
    if not sum(counts):
        return "it has no test images"
    if results["parameters_trainable"] > results["parameters_total"]:
        return "it has more trainable parameters than parameters"
    if results["task"] != "pneumonia":
        return None
    true_positives, false_positives, true_negatives, false_negatives = counts
    rates = {
        "test_accuracy": (true_positives + true_negatives, sum(counts)),
        "test_sensitivity": (true_positives, true_positives + false_negatives),
        "test_specificity": (true_negatives, true_negatives + false_positives),
    }
    for name, (hits, images) in rates.items():
        if images and abs(results[name] - hits / images) > 1.5 / sum(counts):  # a tie may count as either class
            return f"its {name}={_shorten(results[name])} contradicts its counts of test images"
    return None


def _shorten(value: object) -> str:
    shown = ascii(value)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _MAX_CHARACTERS and value.isprintable()


@cache
def _rule(name: str) -> Rule:
    if name in _CHOICES:
        return one_of(*_CHOICES[name])
    if name in _FLAGS:
        return FLAG
    if name in _TEXTS:
        return Rule(_is_text, f"a line of at most {_MAX_CHARACTERS} characters")
    if name in _COUNTS:
        low = _COUNTS[name]
        return Rule(lambda value: is_integer(value) and low <= value <= _MAX_NUMBER, f"a whole number from {low}")
    if name in _AMOUNTS:
        return _between(0, 1e300)
    metric = name.removesuffix("_ci_low").removesuffix("_ci_high").partition("_")[2]
    if metric in METRICS:
        ranges = [METRICS[metric].whole_range(classes) for classes in (2, 3)]
        return _between(min(low for low, _ in ranges), max(high for _, high in ranges))
    return _between(NO_IMAGE if metric in SUBTYPE_METRICS else 0, 1)


def _between(low: float, high: float) -> Rule:
    text = "a number from 0" if high > _MAX_NUMBER else f"a number from {low:g} to {high:g}"
    return Rule(lambda value: is_number(value) and low - _TOLERANCE <= value <= high + _TOLERANCE, text)
