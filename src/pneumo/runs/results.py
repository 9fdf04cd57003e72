"""The file results.json: reader, writer, and what its keys stand for."""

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
from pneumo.runs.result_rules import RESULT_NAMES, find_fault

_LARGEST = 1 << 20  # bytes of results.json, which has 4 KB
Value = str | int | float | bool
Results = dict[str, Value]


def name_run(results: Mapping[str, Value]) -> str:
    """Name a run by network, optimizer and seed."""
    return f"{results['model']} · {results['optimizer']} · seed {results['seed']}"


def count_tested(results: Mapping[str, Value]) -> int:
    """Count the images that a run was tested on."""
    return sum(int(results[f"test_{kind}_{sign}"]) for kind in ("true", "false") for sign in ("positives", "negatives"))


def recorded_estimate(results: Mapping[str, Value], name: str) -> Estimate:
    """Return a metric of the test with its interval."""
    return Estimate(*(float(results[key]) for key in estimate_keys(name)))


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
