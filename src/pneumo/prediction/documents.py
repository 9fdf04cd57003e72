"""Predictions as files, for scripts: JSON and CSV."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pneumo import __version__
from pneumo.cells import escape_cell, format_rows
from pneumo.escaping import escape_line
from pneumo.prediction.predictions import NOTICE, Prediction
from pneumo.prediction.rules import Rules

_COLUMNS = ["path", "probability", "called", "uncertain", "unlike", "unlike_score", "notes", "error"]
_MARGIN = "logit_margin"


def to_json(predictions: Sequence[Prediction], rules: Rules, network: Path) -> str:
    """Write predictions as JSON, with what is needed to understand them; what is not known is null."""
    about = {
        "notice": NOTICE,
        "pneumo_version": __version__,
        "checkpoint": show_path(network),
        "network": rules.name,
        "classes": rules.classes,
        "threshold": rules.threshold if len(rules.classes) == 2 else None,
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


def describe(prediction: Prediction) -> dict[str, Any]:
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
    return {**describe(prediction), "path": path, "notes": prediction.notes, "error": prediction.error}


def _cells(prediction: Prediction, classes: Sequence[str]) -> list[object]:
    record = {**_record(prediction), "notes": "; ".join(prediction.notes)}
    if escape_cell(record["path"]) != record["path"]:
        record["path"] = f"./{record['path']}"  # opens unchanged, and is no formula
    shares = [prediction.probability.get(name) for name in classes]
    cells = [*(record[name] for name in _COLUMNS), *shares, record[_MARGIN]]
    return [str(cell).lower() if isinstance(cell, bool) else cell for cell in cells]
