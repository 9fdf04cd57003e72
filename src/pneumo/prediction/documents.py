"""Predictions as files, for scripts: JSON and CSV."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pneumo import __version__
from pneumo.cells import escape_cell, format_rows
from pneumo.escaping import escape_line
from pneumo.prediction.predictions import NOTICE, Prediction, is_unlike
from pneumo.prediction.rules import Answer, Rules

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
    records = [_record(prediction, rules) for prediction in predictions]
    return json.dumps({**about, "predictions": records}, indent=1, allow_nan=False) + "\n"


def to_csv(predictions: Sequence[Prediction], rules: Rules) -> str:
    """Write predictions as CSV, a row a file; what is not known is empty.

    Of more than two classes each has a column of its own, which its name heads.
    """
    classes = rules.classes if len(rules.classes) > 2 else ()
    head = [*_COLUMNS, *classes, _MARGIN]
    return format_rows([head, *(_cells(prediction, rules, classes) for prediction in predictions)])


def show_path(path: Path) -> str:
    """Give a path as text that can be written anywhere and in one line: what cannot be printed of it is escaped."""
    return escape_line(str(path))


def describe(answer: Answer, rules: Rules) -> dict[str, Any]:
    """Give what there is to tell of an answer, as JSON has it; what is not known is None."""
    return {
        "probability": answer.probability,
        "called": answer.called,
        "uncertain": answer.uncertain if rules.margin is not None else None,
        "unlike": is_unlike(answer) if rules.outliers else None,
        "unlike_score": answer.unlike if rules.outliers else None,
        _MARGIN: float(f"{answer.logit_margin:.9g}"),
        "probabilities": dict(zip(rules.classes, answer.probabilities, strict=True)),
    }


def _cells(prediction: Prediction, rules: Rules, classes: Sequence[str]) -> list[object]:
    record = _record(prediction, rules)
    path = record["path"]
    known = {**record, "notes": "; ".join(prediction.notes)}
    known["path"] = path if escape_cell(path) == path else f"./{path}"  # opens unchanged, and is no formula
    shares = [(record["probabilities"] or {}).get(name) for name in classes]
    cells = [*(known[name] for name in _COLUMNS), *shares, record[_MARGIN]]
    return [str(cell).lower() if isinstance(cell, bool) else cell for cell in cells]


def _record(prediction: Prediction, rules: Rules) -> dict[str, Any]:
    told = (
        describe(prediction.answer, rules)
        if prediction.answer
        else dict.fromkeys([*_COLUMNS, _MARGIN, "probabilities"])
    )
    path, error = show_path(prediction.path), prediction.error or None
    return {**told, "path": path, "notes": prediction.notes, "error": error}
