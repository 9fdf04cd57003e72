"""The files predictions.csv and validation.csv."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
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
_ROUNDING = 1e-3  # of probabilities, by which damage is told from single precision


class PredictionTable(NamedTuple):
    """The content of a file of N images."""

    paths: tuple[str, ...]  # paths of the images, relative to the data's root
    label: tuple[str, ...]  # name of each image's class
    prediction: tuple[str, ...]  # name of each predicted class
    probability: npt.NDArray[np.float64]  # probability of all classes but the first, (N,)
    classes: tuple[str, ...]  # names of classes with probabilities of their own; none of two classes
    shares: npt.NDArray[np.float64]  # these probabilities, (N, classes)
    margins: npt.NDArray[np.float64]  # log odds, (N, 1) of two classes, else (N, classes); (N, 0) in earlier files


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write one line for each image; without log odds there is no column of them."""
    several = not predictions.is_binary
    first = 0 if several else 1  # of two classes, the second says all
    names, shares = predictions.classes, predictions.probability.astype(np.float32)
    odds = np.empty((len(shares), 0)) if predictions.odds is None else predictions.odds[:, first:]
    numbers = np.column_stack((shares[:, 1:].sum(axis=1), shares if several else shares[:, :0], odds))
    rows: list[Sequence[str]] = [_columns(names if several else (), predictions.odds is not None)]
    images = zip(predictions.paths, predictions.label, predictions.predicted, numbers, strict=True)
    for image, label, predicted, row in images:
        probability, *others = (f"{value:.9g}" for value in row)  # 9 digits give a float32 back
        rows.append((image, names[label], probability, names[predicted], *others))
    write_text(path, format_rows(rows))


def read_predictions(folder: Path, results: Results, name: str = "predictions.csv") -> Predictions:
    """Read a run's predictions.

    The file is predictions.csv, of the test images, or validation.csv, of the held-out ones. Of two classes, the
    threshold of the results determines which predictions are positive.

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
        found = Predictions(table.shares, label, predicted, table.classes, odds, table.paths)
    elif results["task"] == "subtype":
        raise _damaged(path, "it has no columns of classes")
    else:
        found = _read_two_classes(path, table, float(results["threshold"]))
    if name == "predictions.csv":
        counts = count_outcomes(found.label, found.predicted)
        for key in counts.keys() - {"collapsed"}:
            if counts[key] != results[key]:
                raise _damaged(path, f"its {key} is {counts[key]}, and results.json has {results[key]}")
    return replace(found, patients=_read_patients(folder, table.paths))


def _read_two_classes(path: Path, table: PredictionTable, threshold: float) -> Predictions:
    """Find out which of the two names is the positive class: the one that is predicted above the threshold."""
    # The run compared single precision; a threshold that is one of the probabilities must fall on the same side.
    probability = table.probability.astype(np.float32)
    predicted = probability > np.float32(threshold)
    positive = predicted == np.array([x == y for x, y in zip(table.label, table.prediction, strict=True)], bool)
    name = dict(zip(positive.tolist(), table.label, strict=True))
    if any(name[is_it] != label for label, is_it in zip(table.label, positive.tolist(), strict=True)):
        raise _damaged(path, f"its predictions are not those of the threshold {threshold} of results.json")
    margin = table.margins[:, 0] if table.margins.size else None
    classes = name.get(False, ""), name.get(True, "")
    return Predictions.binary(probability.astype(np.float64), positive, predicted, classes, table.paths, margin)


def _read_patients(folder: Path, paths: Sequence[str]) -> tuple[str, ...]:
    """Read the patients of images from a run's splits.csv; nothing if there is none."""
    if not (folder / "splits.csv").is_file():
        return ()
    patient = {line["path"]: line["patient"] for line in read_splits(folder)}
    return tuple(patient.get(path, path) for path in paths)


def read_table(path: Path) -> PredictionTable:
    """Read what `write_predictions` wrote, in this version or an earlier one; raise a ConfigError if it is damaged."""
    try:
        head, rows = read_csv(path)
        if not rows:
            raise PlainDataError("it has no images")
        classes, odds = _parse(head)
        table = _to_table(rows, classes, len(odds))
        _check_names(table)
        _check_numbers(table)
    except (OSError, PlainDataError) as error:
        raise _damaged(path, error) from error
    return table


def _damaged(path: Path, reason: object) -> ConfigError:
    """Build the error for a file that cannot be read, with the reason."""
    return ConfigError(
        f"{path}, which a finished run leaves, cannot be read ({reason}): put it back, or delete results.json beside "
        "it, and the run is taken for unfinished."
    )


def _columns(classes: Sequence[str], margins: bool) -> list[str]:
    """Return the columns: with classes, each has a probability and log odds of its own."""
    odds = [f"{_MARGIN}_{name}" for name in classes] or [_MARGIN]
    return ["path", "label", "probability", "prediction", *classes, *(odds if margins else ())]


def _parse(columns: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the classes with probabilities of their own, and the columns of log odds, for any names of classes."""
    others = list(columns[4:])
    classes = others[: len(others) // 2]
    if list(columns) == _columns(classes, margins=True):
        return classes, others[len(classes) :]
    if list(columns) != _columns(others, margins=False) or len(others) in (1, 2):
        raise PlainDataError(f"its columns are not {', '.join(_columns((), margins=True))}, or those of three classes")
    return others, []


def _to_table(rows: Sequence[Sequence[str]], classes: Sequence[str], odds: int) -> PredictionTable:
    numbers = np.empty((len(rows), 1 + len(classes) + odds))
    for number, row in enumerate(rows):
        try:
            numbers[number] = [float(cell) for cell in (row[2], *row[4:])]
        except ValueError:
            raise PlainDataError(f"line {number + 2} has text where a number belongs") from None
    probability, shares, margins = np.split(numbers, [1, 1 + len(classes)], axis=1)
    paths, label, prediction = (tuple(row[column] for row in rows) for column in (0, 1, 3))
    return PredictionTable(paths, label, prediction, probability[:, 0], tuple(classes), shares, margins)


def _check_names(table: PredictionTable) -> None:
    """Refuse paths that are missing or double, and classes that there are not."""
    if not all((*table.paths, *table.label, *table.prediction)):
        raise PlainDataError("it has an image without a path, label or prediction")
    if len(set(table.paths)) < len(table.paths):
        raise PlainDataError("it has an image twice")
    names = {*table.label, *table.prediction}
    if table.classes and (unknown := names - set(table.classes)):
        raise PlainDataError(f"it has no column of the class {min(unknown)[:40]}")
    if not table.classes and len(names) > 2:
        raise PlainDataError(f"it has {len(names)} classes, and no columns of them")


def _check_numbers(table: PredictionTable) -> None:
    """Refuse what no network has answered: numbers that are not finite, or that contradict each other."""
    shares = np.column_stack((table.probability, table.shares))
    if not (np.isfinite(shares).all() and np.isfinite(table.margins).all()):
        raise PlainDataError("it has numbers that are not finite")
    if shares.min() < 0 or shares.max() > 1 + _ROUNDING:
        raise PlainDataError("it has probabilities that are not from 0 to 1")
    if table.classes:
        others = np.column_stack((1 - table.shares[:, 0], table.shares[:, 1:].sum(axis=1)))
        if np.abs(others - shares[:, :1]).max() > _ROUNDING:
            raise PlainDataError("it has probabilities of classes whose sum is not 1")
    known = table.shares if table.classes else shares
    if table.margins.size and np.abs(expit(table.margins) - known).max() > _ROUNDING:
        raise PlainDataError("it has log odds that are not those of the probabilities")
