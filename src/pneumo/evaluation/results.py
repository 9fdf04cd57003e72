"""A run's results: results.json, and the table at the end."""

import json
import logging
import math
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rich

from pneumo.console import PlainTable, tell
from pneumo.errors import ConfigError, TrainingError
from pneumo.evaluation.result_rules import find_fault
from pneumo.files import write_text
from pneumo.plain_data import PlainDataError, read_json

_log = logging.getLogger(__name__)

_LARGEST = 1 << 20  # bytes of results.json, which has 4 KB

Value = str | int | float | bool
Results = dict[str, Value]

SUBTYPES = ("bacterial", "viral")
SUBTYPE_METRICS = ("sensitivity_bacterial", "sensitivity_viral", "auroc_bacterial_viral")
NO_IMAGE = -1.0  # stands for a figure of subtypes that no image has, or that the task does not tell apart
# Every one has its 95 % interval beside it, as test_auroc_ci_low and test_auroc_ci_high.
TITLES = {
    "accuracy": "accuracy",
    "auroc": "AUROC",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "balanced_accuracy": "balanced accuracy",
    "auprc": "average precision",
    "f1": "F1",
    "mcc": "MCC",
    "ece": "ECE",
    "brier": "Brier score",
}
TEST_METRICS = tuple(TITLES)
# fmt: off
# The order of results.json, which users' scripts read: names may be added, none changed.
RESULT_NAMES = (
    "status", "model", "optimizer", "seed", "experiment", "data", "image_size", "epochs", "best_epoch", "batch_size",
    "precision", "device", "parameters_total", "parameters_trainable", "train_accuracy", "test_accuracy",
    "test_accuracy_ci_low", "test_accuracy_ci_high", "test_sensitivity", "test_specificity", "test_balanced_accuracy",
    "test_auroc", "test_auprc", "test_f1", "test_mcc", "test_ece", "test_brier", "test_true_positives",
    "test_false_positives", "test_true_negatives", "test_false_negatives", "threshold", "collapsed", "train_seconds",
    "total_seconds", "samples_per_second", "peak_memory_bytes", "config_hash", "data_hash", "git_commit",
    "torch_version", "pneumo_version", "feature_cache", "cache_seconds", "val_loss",
    "val_accuracy", "val_auroc", "settings_hash", "task", "split", "fold", "folds", "temperature", "threshold_rule",
    "val_sensitivity", "val_specificity", "val_balanced_accuracy",
    *(f"test_{name}_ci_{end}" for name in TEST_METRICS[1:] for end in ("low", "high")),
    *(f"test_{name}{end}" for name in SUBTYPE_METRICS for end in ("", "_ci_low", "_ci_high")),
)
# fmt: on


def confusion(label: npt.NDArray[np.int64], prediction: npt.NDArray[np.int64]) -> Results:
    """Count the test's answers, all classes but the first taken for positive.

    Args:
        label: From 0, shape (N,).
        prediction: likewise.
    """
    collapsed = len(np.unique(prediction)) == 1
    positive, called = label > 0, prediction > 0
    return {
        "test_true_positives": int((positive & called).sum()),
        "test_false_positives": int((~positive & called).sum()),
        "test_true_negatives": int((~positive & ~called).sum()),
        "test_false_negatives": int((positive & ~called).sum()),
        "collapsed": collapsed,
    }


def rates(label: npt.NDArray[np.int64], prediction: npt.NDArray[np.int64], classes: int) -> Results:
    """Give the shares of right answers, as the test's metrics define them: of several classes the means over them.

    Where a class is absent, 0 stands in for its share.

    Args:
        label: From 0, shape (N,).
        prediction: likewise.
        classes: Their number.
    """

    def share(hits: npt.NDArray[np.bool_]) -> float:
        return float(hits.mean()) if len(hits) else 0.0

    recalls = [share(prediction[label == k] == k) for k in range(classes)]
    quiet = [share(prediction[label != k] != k) for k in range(classes)]
    return {
        "accuracy": float((label == prediction).mean()),
        "sensitivity": recalls[1] if classes == 2 else float(np.mean(recalls)),
        "specificity": quiet[1] if classes == 2 else float(np.mean(quiet)),
        "balanced_accuracy": float(np.mean(recalls)),
    }


def count_tested(results: Mapping[str, Value]) -> int:
    """Give the number of images that a run was tested on."""
    return sum(int(results[f"test_{kind}_{sign}"]) for kind in ("true", "false") for sign in ("positives", "negatives"))


def write_results(path: Path, results: Mapping[str, Value]) -> None:
    """Write results.json, whose presence marks the run as finished.

    Raises:
        TrainingError: A figure is not finite.
    """
    broken = [name for name, value in results.items() if isinstance(value, float) and not math.isfinite(value)]
    if broken:
        raise TrainingError(
            f"The run has figures that are not finite ({', '.join(broken)}), so {path} is not written and the run "
            "counts as unfinished. Lower optimizer.lr or set trainer.precision=32-true, and train again."
        )
    write_text(path, json.dumps({name: results[name] for name in RESULT_NAMES}, indent=2) + "\n")


def read_results(folder: Path) -> Results | None:
    """Read the results of the run in a folder; None if none has finished there.

    Raises:
        ConfigError: The file cannot be read or is damaged.
    """
    path = folder / "results.json"
    try:
        found = read_json(path, _LARGEST)
    except FileNotFoundError:
        return None
    except PlainDataError as error:
        raise _damaged(path, str(error)) from error
    if fault := find_fault(found, RESULT_NAMES):
        raise _damaged(path, fault)
    results: Results = found
    return results


def _damaged(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"{path} is damaged, of another version of pneumo, or denied ({reason}): mend its permissions or move it away, "
        "and its run is taken for unfinished."
    )


def check_overwrite(folder: Path, hashes: frozenset[str], data_hash: str) -> None:
    """Raise a ConfigError if a finished run in the folder comes from another configuration or other data.

    Args:
        folder: The run's.
        hashes: Every `config_hash` that stands for the present configuration.
        data_hash: Of the present data.
    """
    found = read_results(folder)
    if found and (found["config_hash"] not in hashes or found.get("data_hash") != data_hash):
        raise ConfigError(
            f"{folder} holds a finished run of another configuration or other data, which would be lost. Remove it, or "
            "write elsewhere with hydra.run.dir=FOLDER; in a sweep, take another sweep.name."
        )


def report(folder: Path, results: Mapping[str, Value]) -> None:
    """Print the figures and where everything lies; say it loudly if they mean little."""
    if results["status"] == "partial":
        _log.warning("PARTIAL: images of the test set were left out, so these figures are no result to report.")
    if results["collapsed"]:
        _log.warning(
            "COLLAPSED: every test image got the same answer, so the accuracy of %.4f is only that class's share. "
            "Lower optimizer.lr, train longer, or look at train/loss in TensorBoard.",
            results["test_accuracy"],
        )
    rich.print(_table(results))
    for name, place in (
        ("results", folder / "results.json"),
        ("predictions", folder / "predictions.csv"),
        ("checkpoint", folder / "checkpoints" / "best.ckpt"),
        ("log", folder / "train.log"),
        ("curves", f"tensorboard --logdir {folder}"),
    ):
        tell(f"{name:<12} {place}")


def _table(results: Mapping[str, Value]) -> PlainTable:
    """Lay out the figures that one looks at first."""
    table = PlainTable(
        title=f"{results['model']} · {results['optimizer']} · seed {results['seed']}", title_style="bold"
    )
    table.add_column("test")
    table.add_column("", justify="right")
    table.add_column("95\u00a0% interval", justify="right")
    table.add_column("run", style="dim")
    table.add_column("", justify="right", style="dim")
    shown = {name: TITLES[name] for name in ("accuracy", "auroc", "balanced_accuracy", "sensitivity")}
    shown |= {
        f"sensitivity_{name}": f"  {name}" for name in SUBTYPES if results[f"test_sensitivity_{name}"] != NO_IMAGE
    }
    shown |= {"specificity": TITLES["specificity"]}
    left = [
        (title, f"{results[f'test_{name}']:.4f}", "{:.3f} to {:.3f}".format(*_interval(results, name)))
        for name, title in shown.items()
    ]
    right = [
        ("train accuracy", f"{results['train_accuracy']:.4f}"),
        ("best epoch", f"{results['best_epoch']} of {results['epochs']}"),
        ("trained parameters", f"{results['parameters_trainable']:,}"),
        ("training", f"{results['train_seconds']:.0f} s"),
        ("images a second", f"{results['samples_per_second']:.0f}"),
    ]
    for first, second in zip_longest(left, right, fillvalue=()):
        table.add_row(*first, *second)
    return table


def _interval(results: Mapping[str, Value], name: str) -> tuple[Value, Value]:
    return results[f"test_{name}_ci_low"], results[f"test_{name}_ci_high"]
