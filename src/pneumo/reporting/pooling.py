"""Pooled predictions: the folds of a cross-validation, and ensembles of runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rich

from pneumo.common.files import write_text
from pneumo.common.plain_data import format_rows
from pneumo.common.terminal import PlainTable, print_line
from pneumo.errors import ConfigError
from pneumo.metrics.definitions import estimates
from pneumo.metrics.predictions import Predictions, concatenate, log_odds, predict_classes
from pneumo.metrics.subtypes import NO_IMAGE
from pneumo.metrics.summary import TITLES, reported_metrics, summarise
from pneumo.reporting.comparison import name_row
from pneumo.reporting.rows import Row
from pneumo.runs.collection import Run, collect
from pneumo.runs.prediction_files import read_predictions, write_predictions
from pneumo.runs.results import recorded_estimate
from pneumo.runs.split_files import read_splits

_HEAD = ("row", "seed", "fold", "path", "label", "probability", "prediction", "logit_margin")
_OF_FOLDS = ("auroc", "balanced_accuracy", "sensitivity", "specificity", "accuracy")
_OF_ENSEMBLES = ("accuracy", "auroc", "balanced_accuracy", "sensitivity", "specificity", "ece", "brier")


class Pooled(NamedTuple):
    """The finished folds of one row and seed, the fold of each image, and the answers to them in that order."""

    row: Row
    seed: int
    fold: tuple[int, ...]
    answers: Predictions


class Ensemble(NamedTuple):
    """Several runs that answer together."""

    members: tuple[Run, ...]  # the runs
    left_out: tuple[str, ...]  # names of others, with the reason
    answers: Predictions  # to the test images, in the order of their paths
    figures: dict[str, float]  # as in results.json: the test's metrics with their intervals, counts, and the threshold


def pool(board: Iterable[Row]) -> list[Pooled]:
    """Put the validation answers of folds together, for each row and seed that has several.

    Raises:
        ConfigError: An image was held out by two folds, which then are not those of one division, or a file is damaged.
    """
    found = []
    for row in board:
        for seed in dict.fromkeys(run.seed for run in row.runs):
            runs = [
                run
                for run in row.runs
                if run.seed == seed and run.fold >= 0 and run.state in ("done", "collapsed")
                if run.results and run.results["task"] == "pneumonia"
            ]
            if len(runs) > 1:
                found.append(_pool(row, seed, runs))
    return found


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
    return Pooled(row, seed, fold, answers)


def folds_csv(pooled: Sequence[Pooled], board: Sequence[Row]) -> str:
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
        for name in _OF_FOLDS
    )
    each = pooled.row.finished
    folds = set(pooled.fold)
    missing = sorted(set(range(int(each[0]["folds"]))) - folds)
    notes = f" Missing: fold {', '.join(map(str, missing))}." if missing else ""
    chosen = {
        "epoch": any(fold["best_epoch"] != fold["epochs"] for fold in each),
        "temperature": any(fold["temperature"] != 1 for fold in each),
        "threshold": each[0]["threshold_rule"] != "fixed",
    }
    if any(chosen.values()):
        notes += f" Each fold chose its {' and '.join(compress(chosen, chosen.values()))} on them, which flatters."
    return (
        f"{name_row(pooled.row, board)}, seed {pooled.seed}: pooled over {len(folds)} folds, "
        f"{len(pooled.fold):,} held-out training images, 95 % intervals in brackets: {shown}.{notes}"
    )


def combine_runs(sweeps: Sequence[Path], folder: Path | None) -> Ensemble:
    """Test the runs of sweeps together; raise a ConfigError if `report_ensemble` would overwrite one of them."""
    combined = combine(collect(sweeps))
    if folder and (folder / "ensemble").resolve() in (run.folder.resolve() for run in combined.members):
        raise ConfigError(
            f"--output {folder} would replace the predictions of the run in {folder / 'ensemble'}, a member of the "
            "ensemble: name another folder."
        )
    return combined


def combine(runs: Sequence[Run]) -> Ensemble:
    """Average the probabilities that runs have given to the same test images, and their thresholds.

    Each run has chosen its threshold on images that others were trained on, so that none could be chosen for all anew.

    Raises:
        ConfigError: There are not two finished runs of two classes, or they were tested on different images.
    """
    members = [
        (run, run.results) for run in runs if run.state == "done" and run.results and run.results["task"] == "pneumonia"
    ]
    finished = tuple(run for run, _ in members)
    if len(members) < 2:
        raise ConfigError(
            f"An ensemble takes two runs at least, and of {len(runs)} here {len(members)} can be in it: runs that have "
            "finished, were tested on all images, tell two classes apart and have not collapsed. Name more runs or "
            "sweeps, such as one with seed=0,1,2."
        )
    answers = [read_predictions(run.folder, results).by_path() for run, results in members]
    first, data = answers[0], members[0][1]["data_hash"]
    for (run, results), other in zip(members, answers, strict=True):
        same = other.paths == first.paths and np.array_equal(other.label, first.label)
        if not same or results["data_hash"] != data:
            raise ConfigError(
                f"{run.folder} was tested on other images than {finished[0].folder}, so that they cannot answer "
                "together: name runs of one data set."
            )
    probability = np.mean([each.probability for each in answers], axis=0).astype(np.float32)
    threshold = float(np.float32(np.mean([float(results["threshold"]) for _, results in members])))
    odds = [each.odds for each in answers if each.odds is not None]
    subtype = {line["path"]: line["subtype"] for line in read_splits(finished[0].folder)}
    combined = replace(
        first,
        probability=probability.astype(np.float64),
        predicted=predict_classes(probability, threshold),
        odds=log_odds(np.stack(odds)) if len(odds) == len(answers) else None,
        subtypes=tuple(subtype.get(path, "none") for path in first.paths),
    )
    figures = {"threshold": threshold, **summarise(combined)}
    left_out = tuple(f"{run.name} ({run.state})" for run in runs if run not in finished)
    return Ensemble(finished, left_out, combined, figures)


def report_ensemble(ensemble: Ensemble, folder: Path | None) -> None:
    """Print an ensemble's test, and write it to ensemble/ in a folder if there is one."""
    rich.print(_table(ensemble))
    print_line(
        "The mean of the members' probabilities, called positive above the mean of their thresholds."
        + (f" Left out: {', '.join(ensemble.left_out)}." if ensemble.left_out else ""),
        style="dim",
        wrap=True,
    )
    if folder is not None:
        place = folder / "ensemble"
        write_predictions(place / "predictions.csv", ensemble.answers)
        about = {"members": [str(run.folder) for run in ensemble.members], **ensemble.figures}
        write_text(place / "ensemble.json", json.dumps(about, indent=2) + "\n")
        print_line(f"{'ensemble':<12} {place / 'ensemble.json'}")


def _table(ensemble: Ensemble) -> PlainTable:
    """Lay out the ensemble's metrics beside those of its members."""
    head = f"Ensemble of {len(ensemble.members)} runs, {len(ensemble.answers.paths):,} test images"
    table = PlainTable(head, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("test")
    for column in ("ensemble", "95\u00a0% interval", "members' mean", "their range"):
        table.add_column(column, justify="right")
    for name, title in reported_metrics(*_OF_ENSEMBLES, subtype="  to {}").items():
        value, low, high = recorded_estimate(ensemble.figures, name)
        known = [run.results for run in ensemble.members if run.results and f"test_{name}" in run.results]
        each = [float(results[f"test_{name}"]) for results in known]
        if value != NO_IMAGE and each:
            texts = f"{value:.4f}", f"{low:.3f} to {high:.3f}", f"{np.mean(each):.4f}"
            table.add_row(title, *texts, f"{min(each):.4f} to {max(each):.4f}")
    return table
