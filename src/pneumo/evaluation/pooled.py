"""Cross-validation: what all folds have answered to the images that each of them held out, taken together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import compress
from typing import NamedTuple

from pneumo.cells import format_rows
from pneumo.errors import ConfigError
from pneumo.evaluation.answers import Predictions, concatenate
from pneumo.evaluation.metrics import estimates
from pneumo.evaluation.pairwise import name_row
from pneumo.evaluation.prediction_files import read_predictions
from pneumo.evaluation.results import TITLES
from pneumo.evaluation.runs import Row, Run

_HEAD = ("row", "seed", "fold", "path", "label", "probability", "prediction", "logit_margin")
_SHOWN = ("auroc", "balanced_accuracy", "sensitivity", "specificity", "accuracy")


class Pooled(NamedTuple):
    """The finished folds of one row and seed, the fold of each image, and the answers to them in that order."""

    row: Row
    seed: int
    folds: tuple[int, ...]
    fold: tuple[int, ...]
    answers: Predictions


def pool(board: Iterable[Row]) -> list[Pooled]:
    """Put the validation answers of folds together, for each row and seed that has several.

    Raises:
        ConfigError: An image was held out by two folds, which then are not those of one division, or a file is damaged.
    """
    found = []
    for row in board:
        for seed in dict.fromkeys(run.seed for run in row.runs):
            runs = [run for run in row.runs if run.seed == seed and run.fold >= 0 and _is_binary(run)]
            if len(runs) > 1:
                found.append(_pool(row, seed, runs))
    return found


def to_csv(pooled: Sequence[Pooled], board: Sequence[Row]) -> str:
    """Format one line for each held-out image; its logit_margin is empty where a fold's run did not record it."""
    lines: list[Sequence[object]] = [_HEAD]
    for each in pooled:
        answers, name = each.answers, name_row(each.row, board)
        margins = [""] * len(each.fold) if answers.margin is None else [f"{margin:.9g}" for margin in answers.margin]
        columns = (each.fold, answers.paths, answers.label, answers.confidence, answers.predicted, margins)
        for fold, path, label, probability, predicted, margin in zip(*columns, strict=True):
            names = answers.classes[label], f"{probability:.9g}", answers.classes[predicted]
            lines.append((name, each.seed, fold, path, *names, margin))
    return format_rows(lines)


def explain_pooled(pooled: Pooled, board: Sequence[Row]) -> str:
    """Say how well held-out images were told apart, each by a network that had not seen its patient."""
    figures = estimates(pooled.answers)
    shown = ", ".join(
        f"{TITLES[name]} {figures[name].value:.4f} ({figures[name].low:.3f} to {figures[name].high:.3f})"
        for name in _SHOWN
    )
    each = pooled.row.finished
    missing = sorted(set(range(int(each[0]["folds"]))) - set(pooled.folds))
    notes = f" Missing: fold {', '.join(map(str, missing))}." if missing else ""
    chosen = {
        "epoch": any(fold["best_epoch"] != fold["epochs"] for fold in each),
        "temperature": any(fold["temperature"] != 1 for fold in each),
        "threshold": each[0]["threshold_rule"] != "fixed",
    }
    if any(chosen.values()):
        notes += f" Each fold chose its {' and '.join(compress(chosen, chosen.values()))} on them, which flatters."
    return (
        f"{name_row(pooled.row, board)}, seed {pooled.seed}: pooled over {len(pooled.folds)} folds, "
        f"{len(pooled.fold):,} held-out training images, 95 % intervals in brackets: {shown}.{notes}"
    )


def _pool(row: Row, seed: int, runs: Sequence[Run]) -> Pooled:
    parts = [read_predictions(run.folder, run.results, "validation.csv") for run in runs if run.results]
    answers = concatenate(parts)
    if len(set(answers.paths)) < len(answers.paths):
        raise ConfigError(
            f"{row.first.folder.parent}: folds of seed {seed} have held out the same images, so they are not of one "
            "division. Run all of them with the same data.folds and seed: sweep.py -m data.split=kfold "
            "data.fold=0,1,2,3,4"
        )
    fold = tuple(run.fold for run, part in zip(runs, parts, strict=True) for _ in part.paths)
    return Pooled(row, seed, tuple(run.fold for run in runs), fold, answers)


def _is_binary(run: Run) -> bool:
    return run.state in ("done", "collapsed") and run.results is not None and run.results["task"] == "pneumonia"
