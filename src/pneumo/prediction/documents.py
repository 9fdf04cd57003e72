"""Predictions as files, for scripts: JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pneumo import __version__
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
    stream = io.StringIO()
    classes = rules.classes if len(rules.classes) > 2 else ()
    writer = csv.DictWriter(stream, [*_COLUMNS, *classes, _MARGIN], lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for prediction in predictions:
        record = _record(prediction, rules)
        cells = {**record, **(record["probabilities"] or {}), "notes": "; ".join(prediction.notes)}
        writer.writerow({k: str(value).lower() if isinstance(value, bool) else value for k, value in cells.items()})
    return stream.getvalue()


def show_path(path: Path) -> str:
    """Give a path as text that can be written anywhere and in one line: what cannot be printed of it is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(path))


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


def _record(prediction: Prediction, rules: Rules) -> dict[str, Any]:
    told = (
        describe(prediction.answer, rules)
        if prediction.answer
        else dict.fromkeys([*_COLUMNS, _MARGIN, "probabilities"])
    )
    path, error = show_path(prediction.path), prediction.error or None
    return {**told, "path": path, "notes": prediction.notes, "error": error}
