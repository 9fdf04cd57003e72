"""Predictions for files, and their form as JSON, CSV, terminal tables and lines."""

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
from pneumo.common.text import escape_line
from pneumo.data.image_notes import note_kind
from pneumo.inference.backend import Rules
from pneumo.inference.inputs import InputImage

NOTICE = "Not a medical device: for research and teaching, and no diagnosis."
UNCERTAIN = "uncertain"
OOD_REMARK = "unlike the films of the training: perhaps no frontal chest radiograph"
_LEAST = float(np.finfo(np.float32).smallest_subnormal)
_COLUMNS = ["path", "probability", "called", "uncertain", "unlike", "unlike_score", "notes", "error"]
_MARGIN = "logit_margin"
_MOST = 40  # rows: about a screen


@dataclass(frozen=True)
class Prediction:
    """A network's prediction for one file, or the reason why the file cannot be read.

    Attributes:
        path: The file's; `-` for a file that was given by its content.
        probability: Of each class, by its name; empty for a file that cannot be read.
        predicted_class: The name of the class; None for a file that cannot be read.
        uncertain: Whether the probability lies so near to the threshold that another class could be right; None where
            the network's run did not choose how near.
        ood_score: How far the image is from the training images: with more than 1 it is hardly a frontal chest
            radiograph. None where the network has no OOD detector.
        notes: From reading the file, such as an implausible DICOM header.
        error: Why the file cannot be read, as a predicate; None for a file that was read.
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
        """Whether `ood_score` is above its limit; None where there is none."""
        return None if self.ood_score is None else self.ood_score > 1

    @property
    def positive_probability(self) -> float:
        """Probability of all classes but the first together: pneumonia."""
        rest, *positive = self.probability.values()
        return positive[0] if len(positive) == 1 else 1 - rest

    @property
    def logit_margin(self) -> float:
        """Log odds of `positive_probability`, which rank images whose probability rounds to 1, up to about 103.

        They follow from all probabilities: single precision is finer near 0 than near 1.
        """
        rest, *positive = self.probability.values()
        return math.log(max(sum(positive), _LEAST)) - math.log(max(rest, _LEAST))

    @property
    def remarks(self) -> list[str]:
        """What limits the prediction, in words."""
        known = ((UNCERTAIN, self.uncertain), (OOD_REMARK, self.out_of_distribution))
        return [*(words for words, true in known if true), *self.notes]


class PredictedBatch(NamedTuple):
    """Predictions for several files, in their order, and the images."""

    predictions: list[Prediction]
    films: list[InputImage]


def format_probability(share: float) -> str:
    """Format a probability with three digits, and no 1.000 or 0.000 for what is neither."""
    return ">0.999" if 0.9995 <= share < 1 else "<0.001" if 0 < share < 0.0005 else f"{share:.3f}"


def to_json(predictions: Sequence[Prediction], rules: Rules, network: Path) -> str:
    """Write predictions as JSON, with what is needed to understand them; what is not known is null."""
    about = {
        "notice": NOTICE,
        "pneumo_version": __version__,
        "checkpoint": show_path(network),
        "network": rules.name,
        "classes": rules.classes,
        "threshold": None if rules.positive_class is None else rules.threshold,
        "margin": rules.margin,
    }
    records = [_record(prediction) for prediction in predictions]
    return json.dumps({**about, "predictions": records}, indent=1, allow_nan=False) + "\n"


def to_csv(predictions: Sequence[Prediction], rules: Rules) -> str:
    """Write predictions as CSV, a row a file; what is not known is empty.

    Of more than two classes each has a column of its own, which its name heads.
    """
    classes = rules.classes if len(rules.classes) > 2 else ()
    rows = [_cells(prediction, classes) for prediction in predictions]
    return format_rows([[*_COLUMNS, *classes, _MARGIN], *rows])


def show_path(path: Path) -> str:
    """Return a path as text of one line; what cannot be printed of it is escaped."""
    return escape_line(str(path))


def describe_prediction(prediction: Prediction) -> dict[str, Any]:
    """Return a prediction as JSON has it; what is not known is None."""
    if prediction.error is not None:
        names = ("probability", "called", "uncertain", "unlike", "unlike_score", _MARGIN, "probabilities")
        return dict.fromkeys(names)
    return {
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
        record["path"] = f"./{record['path']}"  # opens unchanged, and is no formula
    shares = [prediction.probability.get(name) for name in classes]
    cells = [*(record[name] for name in _COLUMNS), *shares, record[_MARGIN]]
    return [str(cell).lower() if isinstance(cell, bool) else cell for cell in cells]


def to_terminal(predictions: Sequence[Prediction], rules: Rules, kept: bool) -> RenderableType:
    """Lay out one prediction or more: a row for each, or, of many, a summary; `kept` is whether a file has them all."""
    parts: list[RenderableType] = [Text(NOTICE, style="bold")]
    if len(predictions) <= _MOST:
        return Group(_rows(predictions, rules), *parts)
    if not kept:
        parts.insert(0, Text("--csv FILE and --json FILE keep the answer to each.", style="dim"))
    return Group(_summary(predictions, rules), *parts)


def to_lines(predictions: Sequence[Prediction]) -> Iterator[str]:
    """Format a line for each, whose fields are divided by tabs: path, probability, class, and remarks.

    Of an unreadable file the second and third are empty, and the last is the reason.
    """
    for prediction in predictions:
        readable = prediction.error is None
        share = f"{prediction.positive_probability:.6f}" if readable else ""
        words = "; ".join([*prediction.remarks, *([] if prediction.error is None else [prediction.error])])
        fields = share, escape_line(prediction.predicted_class or ""), escape_line(words)
        yield "\t".join((show_path(prediction.path), *fields))


def _rows(predictions: Sequence[Prediction], rules: Rules) -> PlainTable:
    several = rules.classes if len(rules.classes) > 2 else ()
    table = PlainTable()
    table.add_column("file", overflow="fold")
    for name in several or ("probability",):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("called", no_wrap=True)
    table.add_column("remarks", overflow="fold")
    for prediction in predictions:
        file = show_path(prediction.path)
        if prediction.error is not None:
            table.add_row(file, *[""] * len(several or (1,)), "", Text("unreadable, as said above", style="red"))
            continue
        shares = prediction.probability.values() if several else [prediction.positive_probability]
        remarks = Text("; ".join(prediction.remarks), style="yellow")
        table.add_row(file, *map(format_probability, shares), prediction.predicted_class, remarks)
    return table


def _summary(predictions: Sequence[Prediction], rules: Rules) -> PlainTable:
    called = Counter(prediction.predicted_class for prediction in predictions)
    said = Counter(note_kind(remark) for prediction in predictions for remark in prediction.remarks)
    table = PlainTable(f"{len(predictions):,} files")
    table.add_column("")
    table.add_column("films", justify="right")
    for name in rules.classes:
        table.add_row(f"called {name}", f"{called[name]:,}")
    first = {name: said.pop(name) for name in (UNCERTAIN, OOD_REMARK) if name in said}
    for remark, count in (*first.items(), *said.most_common()):
        table.add_row(Text(remark, style="yellow"), f"{count:,}")
    if called[None]:
        table.add_row(Text("unreadable, named above", style="red"), f"{called[None]:,}")
    return table
