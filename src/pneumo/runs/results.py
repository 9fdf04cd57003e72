"""The file results.json: values computed from predictions, reader, writer and terminal table."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rich
from scipy.special import log_expit

from pneumo.common.files import write_text
from pneumo.common.plain_data import PlainDataError, read_json
from pneumo.common.terminal import PlainTable, tell
from pneumo.errors import ConfigError, TrainingError
from pneumo.metrics.bootstrap import Resamples
from pneumo.metrics.clusters import clustered_wilson
from pneumo.metrics.definitions import METRICS, auroc, estimates
from pneumo.metrics.intervals import Estimate
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.significance import delong_interval, placements
from pneumo.runs.result_rules import RESULT_NAMES, SUBTYPES, find_fault

_log = logging.getLogger(__name__)
_LARGEST = 1 << 20  # bytes of results.json, which has 4 KB
Value = str | int | float | bool
Results = dict[str, Value]
NO_IMAGE = -1.0  # stands for a figure of subtypes that no image has, or that the task does not tell apart
TITLES = {name: metric.title for name, metric in METRICS.items()}
RANKED_TITLES = {name: metric.title for name, metric in METRICS.items() if metric.rank is not None}


def confusion(label: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]) -> Results:
    """Count a test's predictions, (N,), with all classes but the first as positive ones."""
    positive, detected = label > 0, predicted > 0
    return {
        "test_true_positives": int((positive & detected).sum()),
        "test_false_positives": int((~positive & detected).sum()),
        "test_true_negatives": int((~positive & ~detected).sum()),
        "test_false_negatives": int((positive & ~detected).sum()),
        "collapsed": len(np.unique(predicted)) == 1,
    }


def name_run(results: Mapping[str, Value]) -> str:
    """Name a run by network, optimizer and seed."""
    return f"{results['model']} · {results['optimizer']} · seed {results['seed']}"


def count_tested(results: Mapping[str, Value]) -> int:
    """Count the images that a run was tested on."""
    return sum(int(results[f"test_{kind}_{sign}"]) for kind in ("true", "false") for sign in ("positives", "negatives"))


def recorded_estimate(results: Mapping[str, Value], name: str) -> Estimate:
    """Return a metric of the test with its interval."""
    return Estimate(*(float(results[key]) for key in _keys(name)))


def _keys(name: str) -> tuple[str, str, str]:
    return f"test_{name}", f"test_{name}_ci_low", f"test_{name}_ci_high"


def write_results(path: Path, results: Mapping[str, Value]) -> None:
    """Write results.json, which marks the run as finished; raise a TrainingError if a figure is not finite."""
    broken = [name for name, value in results.items() if isinstance(value, float) and not math.isfinite(value)]
    if broken:
        raise TrainingError(
            f"The run has figures that are not finite ({', '.join(broken)}), so {path} is not written and the run "
            "counts as unfinished. Lower optimizer.lr or set trainer.precision=32-true, and train again."
        )
    write_text(path, json.dumps({name: results[name] for name in RESULT_NAMES}, indent=2) + "\n")


def read_results(folder: Path) -> Results | None:
    """Read the results of the run in a folder, None if none has finished; raise a ConfigError if they are damaged."""
    path = folder / "results.json"
    try:
        found = read_json(path, _LARGEST)
    except FileNotFoundError:
        return None
    except PlainDataError as error:
        raise _damaged(path, str(error)) from error
    if fault := find_fault(found):
        raise _damaged(path, fault)
    results: Results = found
    return results


def read_finished(folder: Path) -> Results:
    """Read the results.json of a run; raise a ConfigError if the run has not finished or the file is damaged."""
    if results := read_results(folder):
        return results
    raise ConfigError(
        f"{folder} holds no results.json, and a report is of one run that has finished: name its folder, such as "
        "outputs/sweep/study/resnext-sgd-s0."
    )


def _damaged(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"{path} is damaged, of another version of pneumo, or denied ({reason}): mend its permissions or move it away, "
        "and its run is taken for unfinished."
    )


def check_overwrite(folder: Path, hashes: frozenset[str], data_hash: str) -> None:
    """Raise a ConfigError if a finished run in the folder comes from another configuration or other data.

    `hashes` has every `config_hash` that stands for the present configuration.
    """
    found = read_results(folder)
    if found and (found["config_hash"] not in hashes or found.get("data_hash") != data_hash):
        raise ConfigError(
            f"{folder} holds a finished run of another configuration or other data, which would be lost. Remove it, or "
            "write elsewhere with hydra.run.dir=FOLDER; in a sweep, take another sweep.name."
        )


def report(folder: Path, results: Mapping[str, Value]) -> None:
    """Print the results and the paths of what the run left; warn of results that mean little."""
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
    """Build the table of the metrics that have a rank, next to what the run was."""
    table = PlainTable(name_run(results))
    table.add_column("test")
    for column in ("", "95\u00a0% interval"):
        table.add_column(column, justify="right")
    table.add_column("run", style="dim")
    table.add_column("", justify="right", style="dim")
    titles = {}
    for name, title in RANKED_TITLES.items():
        titles[name] = title
        if name == "sensitivity":
            titles |= {f"sensitivity_{subtype}": f"  {subtype}" for subtype in SUBTYPES}
    left = []
    for name, title in titles.items():
        value, low, high = recorded_estimate(results, name)
        if value != NO_IMAGE:
            left.append((title, f"{value:.4f}", f"{low:.3f} to {high:.3f}"))
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


def summarise(predictions: Predictions) -> Results:
    """Compute what results.json holds of a test.

    Where a metric or its interval needs a class or a subtype that is absent, the interval is the whole range. The
    sensitivity to a subtype is the fraction of its images whose predicted class is right: pneumonia, or with three
    classes the subtype itself. Without images it is -1.
    """
    found, clusters = estimates(predictions), predictions.clusters
    subtypes = np.array(predictions.subtypes or ("",) * len(clusters))
    for subtype in SUBTYPES:
        chosen = predictions.positive & (subtypes == subtype)
        hits = predictions.right[chosen]
        value = float(hits.mean()) if len(hits) else NO_IMAGE
        found[f"sensitivity_{subtype}"] = Estimate(value, *clustered_wilson(hits, clusters[chosen]))
    found["auroc_bacterial_viral"] = _separate_subtypes(predictions)
    results = confusion(predictions.label, predictions.predicted)
    for name, estimate in found.items():
        results.update(zip(_keys(name), estimate, strict=True))
    return results


def _separate_subtypes(predictions: Predictions) -> Estimate:
    """Compute the AUROC of bacterial against viral pneumonia and its interval.

    Images are ranked by the fraction that viral has of both probabilities.
    """
    viral = predictions.label[predictions.positive] == 2
    if viral.all() or not viral.any():
        return Estimate(NO_IMAGE, 0.0, 1.0)
    ill = predictions.take(np.flatnonzero(predictions.positive))
    pair = ill.probability[:, 1:]
    share = pair[:, 1] / np.maximum(pair.sum(axis=1), np.finfo(np.float64).tiny)
    odds = None if ill.odds is None else np.subtract(*log_expit(ill.odds[:, :0:-1]).T)  # of viral, by both logarithms
    sides = Predictions.binary(share, viral, share > 0.5, margin=odds)
    interval = delong_interval(placements(sides.score, viral, predictions.clusters[predictions.positive]))
    return Estimate(float(auroc(Resamples(sides))[0]), *interval)
