"""Reader and writer of results.json, and values derived from it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from pneumo.common.files import write_text
from pneumo.common.plain_data import PlainDataError, read_json
from pneumo.errors import ConfigError, TrainingError
from pneumo.metrics.intervals import Estimate
from pneumo.metrics.summary import estimate_keys
from pneumo.runs.result_rules import RESULT_NAMES, find_error

_MAX_BYTES = 1 << 20  # of results.json; a typical one has 4 KB
Value = str | int | float | bool
Results = dict[str, Value]


def run_title(results: Mapping[str, Value]) -> str:
    """Return a run's title: model, optimizer and seed."""
    return f"{results['model']} · {results['optimizer']} · seed {results['seed']}"


def count_test_images(results: Mapping[str, Value]) -> int:
    """Return the number of tested images."""
    return sum(int(results[f"test_{kind}_{sign}"]) for kind in ("true", "false") for sign in ("positives", "negatives"))


def recorded_estimate(results: Mapping[str, Value], name: str) -> Estimate:
    """Return a test metric with its confidence interval."""
    return Estimate(*(float(results[key]) for key in estimate_keys(name)))


def write_results(path: Path, results: Mapping[str, Value]) -> None:
    """Write results.json, which marks the run as finished; raise a TrainingError if a value is not finite."""
    non_finite = [name for name, value in results.items() if isinstance(value, float) and not math.isfinite(value)]
    if non_finite:
        raise TrainingError(
            f"Some results are not finite ({', '.join(non_finite)}), so {path} is not written and the run counts as "
            "unfinished. Lower optimizer.lr or set trainer.precision=32-true, and train again."
        )
    write_text(path, json.dumps({name: results[name] for name in RESULT_NAMES}, indent=2) + "\n")


def read_results(folder: Path) -> Results | None:
    """Read a run's results.json; return None if there is none, raise a ConfigError if it is damaged."""
    path = folder / "results.json"
    try:
        content = read_json(path, _MAX_BYTES)
    except FileNotFoundError:
        return None
    except PlainDataError as error:
        raise _damaged(path, str(error)) from error
    if fault := find_error(content):
        raise _damaged(path, fault)
    results: Results = content
    return results


def read_finished(folder: Path) -> Results:
    """Read a run's results.json; raise a ConfigError if it is missing or damaged."""
    if results := read_results(folder):
        return results
    raise ConfigError(
        f"{folder} contains no results.json. Use the folder of a finished run, such as "
        "outputs/sweep/study/resnext-sgd-s0."
    )


def _damaged(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"{path} is damaged, from another version of pneumo, or not readable ({reason}). Fix its permissions, or move "
        "it away to mark the run as unfinished."
    )


def check_overwrite(folder: Path, hashes: frozenset[str], data_hash: str) -> None:
    """Raise a ConfigError if the folder contains a finished run of another configuration or other data.

    `hashes` are all values of `config_hash` that are equivalent to the current configuration.
    """
    results = read_results(folder)
    if results and (results["config_hash"] not in hashes or results.get("data_hash") != data_hash):
        raise ConfigError(
            f"{folder} contains a finished run with another configuration or other data, which would be lost. Remove "
            "the folder or set hydra.run.dir=FOLDER; in a sweep, set another sweep.name."
        )
