"""Predictions for image files, and their JSON, CSV, terminal and plain-text formats."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from pneumo.common import __version__
from pneumo.common.plain_data import escape_cell, format_rows
from pneumo.common.terminal import PlainTable
from pneumo.common.text import escape_line, format_probability
from pneumo.data.image_notes import note_kind
from pneumo.inference.backend import Rules
from pneumo.inference.inputs import InputImage

NOTICE = "Not a medical device: for research and teaching only, not for diagnosis."
UNCERTAIN = "uncertain"
OOD_REMARK = "out of distribution: possibly not a frontal chest radiograph"
_MIN_PROBABILITY = float(np.finfo(np.float32).smallest_subnormal)
_STANDARD_NAMES = ["predicted_class", "out_of_distribution", "ood_score"]
# `called`, `unlike` and `unlike_score` are kept for compatibility; their values equal those of _STANDARD_NAMES.
_COLUMNS = ["path", "probability", "called", "uncertain", "unlike", "unlike_score", "notes", "error"]
_MARGIN = "logit_margin"
_MAX_ROWS = 40  # about one screen


@dataclass(frozen=True)
class Prediction:
    """The prediction for one file, or the reason why the file is unreadable.

    Attributes:
        path: Path of the file; `-` for content without a file.
        probability: Probability of each class by name; empty if the file is unreadable.
        predicted_class: Name of the predicted class; None if the file is unreadable.
        uncertain: Whether the prediction is within the calibrated margin of another class; None without a margin.
        ood_score: Score of the OOD detector; above 1 the image is out of distribution. None without a detector.
        notes: Remarks from reading the file, such as an implausible DICOM header.
        error: Reason why the file is unreadable, as a predicate; None if it was read.
    """

    path: Path
    probability: dict[str, float] = field(default_factory=dict)
    predicted_class: str | None = None
    uncertain: bool | None = None
    ood_score: float | None = None
    notes: tuple[str, ...] = ()
    error: str | None = None

    @property
    def out_of_distribution(self) -> bool | None:
        """True if the OOD score is above 1; None without a score."""
        return None if self.ood_score is None else self.ood_score > 1

    @property
    def positive_probability(self) -> float:
        """Total probability of all classes except the first, which is the negative one."""
        negative, *positive = self.probability.values()
        return positive[0] if len(positive) == 1 else 1 - negative

    @property
    def logit_margin(self) -> float:
        """Log odds of `positive_probability`, up to about 103 in magnitude; they rank probabilities that round to 1.

        They are computed from all probabilities, since single precision is finer near 0 than near 1.
        """
        negative, *positive = self.probability.values()
        return math.log(max(sum(positive), _MIN_PROBABILITY)) - math.log(max(negative, _MIN_PROBABILITY))

    @property
    def remarks(self) -> list[str]:
        """Reasons to doubt the prediction, as text."""
        flags = ((UNCERTAIN, self.uncertain), (OOD_REMARK, self.out_of_distribution))
        return [*(remark for remark, flag in flags if flag), *self.notes]


class PredictedBatch(NamedTuple):
    """The predictions for a batch of input images, in the same order."""

    predictions: list[Prediction]
    images: list[InputImage]


def to_json(predictions: Sequence[Prediction], rules: Rules, network: Path) -> str:
    """Format predictions and the network's settings as JSON; missing values are null."""
    header = {
        "notice": NOTICE,
        "pneumo_version": __version__,
        "checkpoint": show_path(network),
        "network": rules.name,
        "classes": rules.classes,
        "threshold": None if rules.positive_class is None else rules.threshold,
        "margin": rules.margin,
    }
    records = [_record(prediction) for prediction in predictions]
    return json.dumps({**header, "predictions": records}, indent=1, allow_nan=False) + "\n"


def to_csv(predictions: Sequence[Prediction], rules: Rules) -> str:
    """Format predictions as CSV with one row per file; missing values are empty.

    With more than two classes, the probability of each class has a column with the name of the class.
    """
    classes = rules.classes if len(rules.classes) > 2 else ()
    rows = [_cells(prediction, classes) for prediction in predictions]
    return format_rows([[*_COLUMNS, *classes, _MARGIN, *_STANDARD_NAMES], *rows])


def show_path(path: Path) -> str:
    """Return a path as one line of text with unprintable characters escaped."""
    return escape_line(str(path))


def describe_prediction(prediction: Prediction) -> dict[str, Any]:
    """Return a prediction as a JSON object; missing values are None."""
    if prediction.error is not None:
        names = ("probability", "called", "uncertain", "unlike", "unlike_score", _MARGIN, "probabilities")
        return dict.fromkeys((*_STANDARD_NAMES, *names))
    return {
        "predicted_class": prediction.predicted_class,
        "out_of_distribution": prediction.out_of_distribution,
        "ood_score": prediction.ood_score,
        "probability": prediction.positive_probability,
        "called": prediction.predicted_class,
        "uncertain": prediction.uncertain,
        "unlike": prediction.out_of_distribution,
        "unlike_score": prediction.ood_score,
        _MARGIN: float(f"{prediction.logit_margin:.9g}"),
        "probabilities": prediction.probability,
    }


def _record(prediction: Prediction) -> dict[str, Any]:
    path = show_path(prediction.path)
    return {**describe_prediction(prediction), "path": path, "notes": prediction.notes, "error": prediction.error}


def _cells(prediction: Prediction, classes: Sequence[str]) -> list[object]:
    record = {**_record(prediction), "notes": "; ".join(prediction.notes)}
    if escape_cell(record["path"]) != record["path"]:
        record["path"] = f"./{record['path']}"  # the same file, but not a spreadsheet formula
    probabilities = [prediction.probability.get(name) for name in classes]
    standard = [record[name] for name in _STANDARD_NAMES]
    cells = [*(record[name] for name in _COLUMNS), *probabilities, record[_MARGIN], *standard]
    return [str(cell).lower() if isinstance(cell, bool) else cell for cell in cells]


def to_terminal(predictions: Sequence[Prediction], rules: Rules, saved: bool) -> RenderableType:
    """Render a table of predictions, or a summary of many.

    Args:
        predictions: One or more predictions.
        rules: Rules of the network.
        saved: Whether a file contains all predictions; otherwise a summary mentions the options that write one.
    """
    parts: list[RenderableType] = [Text(NOTICE, style="bold")]
    if len(predictions) <= _MAX_ROWS:
        return Group(_table(predictions, rules), *parts)
    if not saved:
        parts.insert(0, Text("Use --csv FILE or --json FILE to save the prediction for each image.", style="dim"))
    return Group(_summary(predictions, rules), *parts)


def to_lines(predictions: Sequence[Prediction]) -> Iterator[str]:
    """Format each prediction as a line of tab-separated path, probability, predicted class and remarks.

    For an unreadable file, probability and class are empty, and the remark is the reason.
    """
    for prediction in predictions:
        readable = prediction.error is None
        probability = f"{prediction.positive_probability:.6f}" if readable else ""
        remarks = "; ".join([*prediction.remarks, *([] if prediction.error is None else [prediction.error])])
        fields = probability, escape_line(prediction.predicted_class or ""), escape_line(remarks)
        yield "\t".join((show_path(prediction.path), *fields))


def _table(predictions: Sequence[Prediction], rules: Rules) -> PlainTable:
    classes = rules.classes if len(rules.classes) > 2 else ()
    table = PlainTable()
    table.add_column("file", overflow="fold")
    for name in classes or ("probability",):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("predicted class", no_wrap=True)
    table.add_column("remarks", overflow="fold")
    for prediction in predictions:
        file = show_path(prediction.path)
        if prediction.error is not None:
            table.add_row(file, *[""] * len(classes or (1,)), "", Text("unreadable, see above", style="red"))
            continue
        probabilities = prediction.probability.values() if classes else [prediction.positive_probability]
        remarks = Text("; ".join(prediction.remarks), style="yellow")
        table.add_row(file, *map(format_probability, probabilities), prediction.predicted_class, remarks)
    return table


def _summary(predictions: Sequence[Prediction], rules: Rules) -> PlainTable:
    predicted = Counter(prediction.predicted_class for prediction in predictions)
    remarks = Counter(note_kind(remark) for prediction in predictions for remark in prediction.remarks)
    table = PlainTable(f"{len(predictions):,} files")
    table.add_column("")
    table.add_column("images", justify="right")
    for name in rules.classes:
        table.add_row(f"predicted {name}", f"{predicted[name]:,}")
    first = {name: remarks.pop(name) for name in (UNCERTAIN, OOD_REMARK) if name in remarks}
    for remark, count in (*first.items(), *remarks.most_common()):
        table.add_row(Text(remark, style="yellow"), f"{count:,}")
    if predicted[None]:
        table.add_row(Text("unreadable, listed above", style="red"), f"{predicted[None]:,}")
    return table
