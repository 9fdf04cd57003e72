"""The files predictions.csv and validation.csv."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pneumo.cells import format_rows, read_rows
from pneumo.errors import ConfigError
from pneumo.files import write_text

_MARGIN = "logit_margin"


class PredictionTable(NamedTuple):
    """The content of a file of N images.

    Attributes:
        paths: Relative to the data's root.
        label: Name of each image's class.
        prediction: Likewise.
        probability: Of all classes but the first, (N,).
        classes: With probabilities of their own; none of two classes.
        shares: These probabilities, (N, classes).
        margins: Log odds, (N, 1) of two classes, else (N, classes); (N, 0) in files of earlier versions.
    """

    paths: tuple[str, ...]
    label: list[str]
    prediction: list[str]
    probability: npt.NDArray[np.float64]
    classes: tuple[str, ...]
    shares: npt.NDArray[np.float64]
    margins: npt.NDArray[np.float64]


def write_predictions(
    path: Path,
    images: Sequence[str],
    label: npt.NDArray[np.int64],
    probability: npt.NDArray[np.float32],
    prediction: npt.NDArray[np.int64],
    classes: Sequence[str],
    margin: npt.NDArray[np.floating[Any]] | None = None,
) -> None:
    """Write one line for each image.

    Args:
        path: The file's.
        images: Paths of N images.
        label: From 0, (N,).
        probability: Of the positive class, (N,), or of each of several, (N, classes), all but the first positive.
        prediction: As label, (N,).
        classes: Their names.
        margin: Log odds of the shape of `probability`; None: they are unknown, and have no column.
    """
    several = probability.ndim > 1
    rows: list[Sequence[str]] = [_columns(classes if several else (), margin is not None)]
    margins = np.empty((len(label), 0)) if margin is None else margin.reshape(len(label), -1)
    for image, truth, share, answer, odds in zip(images, label, probability, prediction, margins, strict=True):
        shares = (share[1:].sum(), *share) if several else (share,)
        first, *others = (f"{value:.9g}" for value in (*shares, *odds))  # 9 digits give a float32 back
        rows.append((image, classes[truth], first, classes[answer], *others))
    write_text(path, format_rows(rows))


def read_predictions(path: Path) -> PredictionTable:
    """Read what `write_predictions` wrote, in this version or an earlier one.

    Raises:
        ConfigError: The file is missing or damaged, has no images, or has numbers that are not finite.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            columns, lines = read_rows(file)
        classes, odds = _parse(columns)
        if not lines:
            raise ValueError("it has no images")
        if bad := [number for number, line in enumerate(lines, 2) if None in line or None in line.values()]:
            raise ValueError(f"line {bad[0]} does not have a value for each column")
        names = ["probability", *classes, *odds]
        numbers = np.array([[float(line[name]) for name in names] for line in lines])
        if not np.isfinite(numbers).all():
            raise ValueError("it has numbers that are not finite")
        paths, label, prediction = ([line[name] for line in lines] for name in ("path", "label", "prediction"))
        if unknown := {*label, *prediction} - set(classes) if classes else None:
            raise ValueError(f"it has no column of the class {min(unknown)}")
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise damaged(path, error) from error
    probability, shares, margins = np.split(numbers, [1, 1 + len(classes)], axis=1)
    return PredictionTable(tuple(paths), label, prediction, probability[:, 0], tuple(classes), shares, margins)


def damaged(path: Path, reason: object) -> ConfigError:
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
    return others, []
