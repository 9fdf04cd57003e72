"""Reader and writer of external/: tests of a run's best checkpoint on labelled images of other sources.

Each test is a JSON file, written last, and a CSV file with one row per image.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from pneumo.common import __version__
from pneumo.common.files import bounded_name, require_writable, write_text
from pneumo.common.plain_data import PlainDataError, parse_csv, read_bytes, read_json
from pneumo.common.text import escape_line
from pneumo.errors import ConfigError
from pneumo.metrics.clusters import number_clusters
from pneumo.metrics.intervals import Estimate
from pneumo.metrics.predictions import Predictions
from pneumo.runs.external_test_rules import METRIC_NAMES, SCHEMA, check_content, metric_keys
from pneumo.runs.prediction_files import PredictionTable, parse_table, write_predictions

FOLDER = "external"
_RETRAINED = "the run was trained again since"
_PATIENT = "patient"
_RESERVED = ("results", "status")  # RESERVED.json marks a run folder
_MAX_JSON_BYTES = 1 << 20
_MAX_CSV_BYTES = 512 << 20  # as for all CSV files


@dataclass(frozen=True, eq=False)
class ExternalTest:
    """Predictions of a run's best checkpoint for one labelled set of another source."""

    name: str  # name of the set
    split: str  # split that was used of data with splits
    predictions: Predictions  # with classes, paths and log odds; patients are names, or numbers once read
    metrics: Mapping[str, Estimate]  # those of METRIC_NAMES that the set's classes determine
    threshold: float | None  # of two classes; None with more
    checkpoint_hash: str  # SHA-256 of the checkpoint's content
    date: str = ""  # ISO date of the test, set by the writer

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.predictions.label)

    @property
    def patients(self) -> int:
        """Number of patients; an image without a known patient counts as one."""
        return len(np.unique(self.predictions.clusters))


def prepare_external_folder(run: Path) -> None:
    """Create the folder of external tests; raise a ConfigError if it cannot be written."""
    folder = run / FOLDER
    try:
        require_writable(folder)
    except OSError as error:
        raise ConfigError(
            f"--record requires that {folder} can be written, but it cannot ({error.strerror or error}). Change its "
            "permissions, or omit --record."
        ) from error


def write_external_test(run: Path, test: ExternalTest) -> Path:
    """Write a test and replace an earlier one with the same name; return the path of its JSON file.

    Patients are written as numbers in the order of first appearance. The hash of the run's predictions.csv identifies
    the tested weights, since `pneumo report` does not open checkpoints.

    Args:
        run: Folder of the finished run.
        test: The test; its name is escaped and bounded.

    Raises:
        FileError: A file cannot be written.
    """
    name = _bounded(test.name)
    path = run / FOLDER / f"{_file_stem(name)}.json"
    table = path.with_suffix(".csv")
    numbers = number_clusters(test.predictions.patients or test.predictions.paths)
    write_predictions(table, test.predictions, {_PATIENT: list(map(str, numbers.tolist()))})
    content = {
        "schema": SCHEMA,
        "name": name,
        "split": test.split,
        "classes": test.predictions.classes,
        "images": test.images,
        "patients": test.patients,
        "threshold": test.threshold,
        **{key: value for name in METRIC_NAMES for key, value in _flatten(name, test.metrics.get(name)).items()},
        "checkpoint_sha256": test.checkpoint_hash,
        "run_predictions_sha256": _hash_file(run / "predictions.csv"),
        "csv_sha256": _hash_file(table),
        "pneumo_version": __version__,
        "date": datetime.now(timezone.utc).date().isoformat(),
    }
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def read_external_tests(run: Path) -> tuple[list[ExternalTest], list[tuple[Path, str]]]:
    """Read the external tests of a finished run, sorted by name.

    Returns:
        The tests, and path and reason of each file that is ignored: it is damaged, or of earlier weights of the run.
    """
    tests: dict[str, ExternalTest] = {}
    ignored: list[tuple[Path, str]] = []
    paths = sorted((run / FOLDER).glob("[!.]*.json"))  # temporary files start with a dot
    current = _hash_run(run) if paths else ""
    for path in paths:
        try:
            content = check_content(read_json(path, _MAX_JSON_BYTES))
            if content["run_predictions_sha256"] != current:
                raise PlainDataError(_RETRAINED if current else "the run has no readable predictions.csv")
            if content["name"] in tests:
                raise PlainDataError("another file has the same set")
            tests[content["name"]] = _read(path.with_suffix(".csv"), content)
        except FileNotFoundError:
            ignored.append((path, "its CSV file does not exist"))
        except (OSError, ValueError) as error:
            ignored.append((path, str(error)))
    return [tests[name] for name in sorted(tests)], ignored


def _bounded(name: str) -> str:
    """Return a name as one line of at most 255 bytes."""
    return bounded_name(escape_line(name).encode(errors="backslashreplace").decode() or "images")


def _file_stem(name: str) -> str:
    """Return the name of a set's files without suffix; a hash is added if a character of the set's name is replaced."""
    safe = re.sub(r"^[.-]|[^\w.+-]", "_", name)
    if safe != name or safe in _RESERVED:
        safe = f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return bounded_name(safe, ".json").removesuffix(".json")


def _flatten(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    ends = (None, None, None) if estimate is None else estimate
    return dict(zip(metric_keys(name), ends, strict=True))


def _hash_run(run: Path) -> str:
    """Return the hash of a run's predictions.csv; empty if it cannot be read."""
    try:
        return _hash_file(run / "predictions.csv")
    except (OSError, PlainDataError):
        return ""


def _hash_file(path: Path) -> str:
    return hashlib.sha256(read_bytes(path, _MAX_CSV_BYTES)).hexdigest()


def _read(path: Path, content: Mapping[str, Any]) -> ExternalTest:
    """Read the CSV file of a test whose JSON file has valid content."""
    data = read_bytes(path, _MAX_CSV_BYTES)
    if hashlib.sha256(data).hexdigest() != content["csv_sha256"]:
        raise PlainDataError(f"{path.name} was changed or is incomplete")
    header, rows = parse_csv(data.decode())
    if header[-1:] != [_PATIENT]:
        raise PlainDataError(f"{path.name} has no last column {_PATIENT}")
    table = parse_table(header[:-1], [row[:-1] for row in rows])
    test = ExternalTest(
        name=content["name"],
        split=content["split"],
        predictions=_to_predictions(table, content["classes"], tuple(row[-1] for row in rows)),
        metrics={name: Estimate(*values) for name in METRIC_NAMES if None not in (values := _values(content, name))},
        threshold=content["threshold"],
        checkpoint_hash=content["checkpoint_sha256"],
        date=content["date"],
    )
    if (test.images, test.patients) != (content["images"], content["patients"]):
        raise PlainDataError(f"{path.name} has other numbers of images or patients")
    return test


def _values(content: Mapping[str, Any], name: str) -> list[Any]:
    return [content.get(key) for key in metric_keys(name)]


def _to_predictions(table: PredictionTable, classes: list[str], patients: tuple[str, ...]) -> Predictions:
    names = tuple(classes)
    if unknown := {*table.label, *table.prediction} - set(names):
        raise PlainDataError(f"the class {min(unknown)[:40]} is unknown")
    label, predicted = (np.array([names.index(each) for each in column]) for column in (table.label, table.prediction))
    odds = table.margins if table.margins.size else None
    if len(names) > 2:
        if table.classes != names:
            raise PlainDataError("its classes differ from those of its CSV file")
        return Predictions(table.class_probabilities, label, predicted, names, odds, table.paths, patients)
    margin = None if odds is None else odds[:, 0]
    binary = names[0], names[1]
    return Predictions.binary(table.probability, label > 0, predicted > 0, binary, table.paths, margin, patients)
