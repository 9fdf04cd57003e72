"""Reader and writer of predictions.csv and validation.csv."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from pneumo.common.files import write_text
from pneumo.common.plain_data import PlainDataError, format_rows, read_csv
from pneumo.errors import ConfigError
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.summary import count_outcomes
from pneumo.runs.results import Results
from pneumo.runs.split_files import read_splits

_MARGIN = "logit_margin"
_SITE = "site"  # first of the columns of a table
_TOLERANCE = 1e-3  # of probabilities; larger than float32 rounding errors


class PredictionTable(NamedTuple):
    """Content of a file with N images."""

    paths: tuple[str, ...]  # paths of the images, relative to the data's root
    label: tuple[str, ...]  # true class of each image
    prediction: tuple[str, ...]  # predicted class of each image
    probability: npt.NDArray[np.float64]  # 1 minus the probability of the first class, (N,)
    classes: tuple[str, ...]  # classes with a probability column; empty for binary tasks
    class_probabilities: npt.NDArray[np.float64]  # (N, classes)
    margins: npt.NDArray[np.float64]  # log odds, (N, 1) if binary, else (N, classes); (N, 0) in earlier files
    extra: Mapping[str, tuple[str, ...]] = MappingProxyType({})  # site and free columns of runs on a table


def write_predictions(
    path: Path, predictions: Predictions, extra: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> None:
    """Write one row per image; without log odds, their columns are omitted.

    `extra` has the last columns by name, (N,) each; those that `read_table` reads start with `site`.
    """
    binary = predictions.is_binary
    names, probabilities = predictions.classes, predictions.probability.astype(np.float32)
    first = 1 if binary else 0  # a binary task needs only the second class
    odds = np.empty((len(probabilities), 0)) if predictions.odds is None else predictions.odds[:, first:]
    columns = probabilities[:, 1:].sum(axis=1), probabilities[:, :0] if binary else probabilities, odds
    numbers = np.column_stack(columns)
    rows: list[Sequence[str]] = [[*_columns(() if binary else names, predictions.odds is not None), *extra]]
    last = zip(*extra.values(), strict=True) if extra else [()] * len(numbers)
    images = zip(predictions.paths, predictions.label, predictions.predicted, numbers, last, strict=True)
    for image, label, predicted, row, cells in images:
        probability, *others = (f"{value:.9g}" for value in row)  # 9 digits restore a float32 exactly
        rows.append((image, names[label], probability, names[predicted], *others, *cells))
    write_text(path, format_rows(rows))


def read_predictions(folder: Path, results: Results, name: str = "predictions.csv") -> Predictions:
    """Read a run's predictions.

    Args:
        folder: Run folder.
        results: Content of its results.json; in a binary task, its threshold determines the positive predictions.
        name: predictions.csv (test images) or validation.csv (validation images).

    Raises:
        ConfigError: The file is missing or damaged, or contradicts the results.
    """
    path = folder / name
    table = read_table(path)
    if table.classes:
        label, predicted = (
            np.array([table.classes.index(x) for x in each]) for each in (table.label, table.prediction)
        )
        odds = table.margins if table.margins.size else None
        predictions = Predictions(table.class_probabilities, label, predicted, table.classes, odds, table.paths)
    elif results["task"] != "pneumonia":
        raise _damaged(path, "it has no columns for classes")
    else:
        predictions = _read_binary(path, table, float(results["threshold"]))
    if name == "predictions.csv":
        counts = count_outcomes(predictions.label, predictions.predicted)
        for key in counts.keys() - {"collapsed"}:
            if counts[key] != results[key]:
                raise _damaged(path, f"its {key} is {counts[key]}, but results.json has {results[key]}")
    return replace(predictions, patients=_read_patients(folder, table.paths))


def _read_binary(path: Path, table: PredictionTable, threshold: float) -> Predictions:
    """Build binary predictions; the positive class is the one predicted above the threshold."""
    # The run compared float32 values; a threshold equal to a probability must give the same prediction.
    probability = table.probability.astype(np.float32)
    predicted = probability > np.float32(threshold)
    correct = np.array([x == y for x, y in zip(table.label, table.prediction, strict=True)], bool)
    positive = predicted == correct
    name = dict(zip(positive.tolist(), table.label, strict=True))
    if any(name[is_positive] != label for label, is_positive in zip(table.label, positive.tolist(), strict=True)):
        raise _damaged(path, f"its predictions do not match the threshold {threshold} of results.json")
    margin = table.margins[:, 0] if table.margins.size else None
    classes = name.get(False, ""), name.get(True, "")
    return Predictions.binary(probability.astype(np.float64), positive, predicted, classes, table.paths, margin)


def _read_patients(folder: Path, paths: Sequence[str]) -> tuple[str, ...]:
    """Read the patients of images from a run's splits.csv; empty if there is none."""
    if not (folder / "splits.csv").is_file():
        return ()
    patient = {line["path"]: line["patient"] for line in read_splits(folder)}
    return tuple(patient.get(path, path) for path in paths)


def read_table(path: Path) -> PredictionTable:
    """Read a file that this or an earlier version wrote; raise a ConfigError if it is damaged."""
    try:
        header, rows = read_csv(path)
        own = _count_own_columns(header)
        table = parse_table(header[:own], [row[:own] for row in rows])
    except (OSError, PlainDataError) as error:
        raise _damaged(path, error) from error
    extra = zip(*(row[own:] for row in rows), strict=True)
    return table._replace(extra=dict(zip(header[own:], extra, strict=True)))


def parse_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> PredictionTable:
    """Parse the columns of a file except the extra ones; raise a PlainDataError if they are damaged."""
    if not rows:
        raise PlainDataError("it has no images")
    classes, odds = _parse_columns(header)
    table = _to_table(rows, classes, len(odds))
    _check_names(table)
    _check_numbers(table)
    return table


def _damaged(path: Path, reason: object) -> ConfigError:
    return ConfigError(
        f"{path} cannot be read ({reason}), although the run has finished. Restore the file, or delete the "
        "results.json next to it to mark the run as unfinished."
    )


def _columns(classes: Sequence[str], margins: bool) -> list[str]:
    """Return the names of the columns; each of `classes` gets columns for its probability and log odds."""
    odds = [f"{_MARGIN}_{name}" for name in classes] or [_MARGIN]
    return ["path", "label", "probability", "prediction", *classes, *(odds if margins else ())]


def _count_own_columns(columns: Sequence[str]) -> int:
    """Return the number of columns before `site` and the free columns of a table."""
    for index in range(5, len(columns)):
        classes = columns[4 : 4 + (index - 4) // 2]
        if columns[index] == _SITE and list(columns[:index]) == _columns(classes, margins=True):
            return index
    return len(columns)


def _parse_columns(columns: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the classes with a probability column and the columns of log odds; classes may have any names."""
    others = list(columns[4:])
    classes = others[: len(others) // 2]
    if list(columns) == _columns(classes, margins=True):
        return classes, others[len(classes) :]
    if list(columns) != _columns(others, margins=False) or len(others) in (1, 2):
        raise PlainDataError(
            f"its columns must be {', '.join(_columns((), margins=True))}, or those of several classes"
        )
    return others, []


def _to_table(rows: Sequence[Sequence[str]], classes: Sequence[str], odds: int) -> PredictionTable:
    numbers = np.empty((len(rows), 1 + len(classes) + odds))
    for index, row in enumerate(rows):
        try:
            numbers[index] = [float(cell) for cell in (row[2], *row[4:])]
        except ValueError:
            raise PlainDataError(f"line {index + 2} has text instead of a number") from None
    probability, class_probabilities, margins = np.split(numbers, [1, 1 + len(classes)], axis=1)
    paths, label, prediction = (tuple(row[column] for row in rows) for column in (0, 1, 3))
    return PredictionTable(paths, label, prediction, probability[:, 0], tuple(classes), class_probabilities, margins)


def _check_names(table: PredictionTable) -> None:
    """Raise a PlainDataError for missing or duplicate paths and for unknown classes."""
    if not all((*table.paths, *table.label, *table.prediction)):
        raise PlainDataError("it has an image without a path, label or prediction")
    if len(set(table.paths)) < len(table.paths):
        raise PlainDataError("it has a duplicate image")
    names = {*table.label, *table.prediction}
    if table.classes and (unknown := names - set(table.classes)):
        raise PlainDataError(f"it has no column for the class {min(unknown)[:40]}")
    if not table.classes and len(names) > 2:
        raise PlainDataError(f"it has {len(names)} classes, but no columns for them")


def _check_numbers(table: PredictionTable) -> None:
    """Raise a PlainDataError for numbers that are not finite or contradict each other."""
    probabilities = np.column_stack((table.probability, table.class_probabilities))
    if not (np.isfinite(probabilities).all() and np.isfinite(table.margins).all()):
        raise PlainDataError("it has numbers that are not finite")
    if probabilities.min() < 0 or probabilities.max() > 1 + _TOLERANCE:
        raise PlainDataError("it has probabilities outside 0 to 1")
    if table.classes:
        by_class = table.class_probabilities
        expected = np.column_stack((1 - by_class[:, 0], by_class[:, 1:].sum(axis=1)))
        if np.abs(expected - probabilities[:, :1]).max() > _TOLERANCE:
            raise PlainDataError("it has class probabilities whose sum is not 1")
    probabilities = table.class_probabilities if table.classes else probabilities
    if table.margins.size and np.abs(expit(table.margins) - probabilities).max() > _TOLERANCE:
        raise PlainDataError("it has log odds that do not match the probabilities")
