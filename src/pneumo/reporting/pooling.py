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

_HEADER = ("row", "seed", "fold", "path", "label", "probability", "prediction", "logit_margin")
_FOLD_METRICS = ("auroc", "balanced_accuracy", "sensitivity", "specificity", "accuracy")
_ENSEMBLE_METRICS = ("accuracy", "auroc", "balanced_accuracy", "sensitivity", "specificity", "ece", "brier")


class Pooled(NamedTuple):
    """Validation predictions of the finished folds of one row and seed."""

    row: Row
    seed: int
    fold: tuple[int, ...]  # fold of each image, in the order of `predictions`
    predictions: Predictions


class Ensemble(NamedTuple):
    """Averaged predictions of several runs."""

    members: tuple[Run, ...]
    left_out: tuple[str, ...]  # names and states of the runs that cannot be members
    predictions: Predictions  # for the test images, sorted by path
    metrics: dict[str, float]  # as in results.json: test metrics with intervals, counts, and the threshold


def pool(rows: Iterable[Row]) -> list[Pooled]:
    """Pool the validation predictions of folds, for each row and seed with several folds.

    Raises:
        ConfigError: An image was held out by two folds, so they are not from the same split, or a file is damaged.
    """
    pooled = []
    for row in rows:
        for seed in dict.fromkeys(run.seed for run in row.runs):
            runs = [
                run
                for run in row.runs
                if run.seed == seed and run.fold >= 0 and run.state in ("done", "collapsed")
                if run.results and run.results["task"] == "pneumonia"
            ]
            if len(runs) > 1:
                pooled.append(_pool(row, seed, runs))
    return pooled


def _pool(row: Row, seed: int, runs: Sequence[Run]) -> Pooled:
    parts = [read_predictions(run.folder, run.results, "validation.csv") for run in runs if run.results]
    predictions = concatenate(parts)
    if len(set(predictions.paths)) < len(predictions.paths):
        raise ConfigError(
            f"{row.first.folder.parent}: some folds of seed {seed} have held out the same images, so they are not from "
            "the same split. Run all folds with the same data.folds and seed: sweep.py -m data.split=kfold "
            "data.fold=0,1,2,3,4"
        )
    fold = tuple(run.fold for run, part in zip(runs, parts, strict=True) for _ in part.paths)
    return Pooled(row, seed, fold, predictions)


def folds_csv(pooled: Sequence[Pooled], rows: Sequence[Row]) -> str:
    """Format one line for each held-out image; logit_margin is empty if the fold's run did not record it."""
    lines: list[Sequence[object]] = [_HEADER]
    for each in pooled:
        found, name = each.predictions, name_row(each.row, rows)
        margins = [""] * len(each.fold) if found.margin is None else [f"{margin:.9g}" for margin in found.margin]
        columns = (each.fold, found.paths, found.label, found.confidence, found.predicted, margins)
        for fold, path, label, probability, predicted, margin in zip(*columns, strict=True):
            cells = found.classes[label], f"{probability:.9g}", found.classes[predicted]
            lines.append((name, each.seed, fold, path, *cells, margin))
    return format_rows(lines)


def describe_pooled(pooled: Pooled, rows: Sequence[Row]) -> str:
    """Describe the metrics on the held-out images of all folds, and the choices that were made on these images."""
    metrics = estimates(pooled.predictions)
    shown = ", ".join(
        f"{TITLES[name]} {metrics[name].value:.4f} ({metrics[name].low:.3f} to {metrics[name].high:.3f})"
        for name in _FOLD_METRICS
    )
    results = pooled.row.finished
    folds = set(pooled.fold)
    missing = sorted(set(range(int(results[0]["folds"]))) - folds)
    notes = f" Missing: fold {', '.join(map(str, missing))}." if missing else ""
    selected = {
        "epoch": any(fold["best_epoch"] != fold["epochs"] for fold in results),
        "temperature": any(fold["temperature"] != 1 for fold in results),
        "threshold": results[0]["threshold_rule"] != "fixed",
    }
    if any(selected.values()):
        names = " and ".join(compress(selected, selected.values()))
        notes += f" Each fold selected its {names} on its held-out images, so these numbers are optimistic."
    return (
        f"{name_row(pooled.row, rows)}, seed {pooled.seed}: pooled over {len(folds)} folds, "
        f"{len(pooled.fold):,} held-out training images, 95 % intervals in brackets: {shown}.{notes}"
    )


def combine_runs(sweeps: Sequence[Path], folder: Path | None) -> Ensemble:
    """Evaluate the ensemble of all runs; raise a ConfigError if `report_ensemble` would overwrite a member."""
    combined = combine(collect(sweeps))
    if folder and (folder / "ensemble").resolve() in (run.folder.resolve() for run in combined.members):
        raise ConfigError(
            f"--output {folder} would replace the predictions of the run in {folder / 'ensemble'}, a member of the "
            "ensemble. Use another folder."
        )
    return combined


def combine(runs: Sequence[Run]) -> Ensemble:
    """Average the test probabilities and the thresholds of runs.

    No common threshold can be selected: the validation images of one run may be training images of another.

    Raises:
        ConfigError: There are fewer than two finished runs with two classes, or their test images are different.
    """
    members = [
        (run, run.results) for run in runs if run.state == "done" and run.results and run.results["task"] == "pneumonia"
    ]
    finished = tuple(run for run, _ in members)
    if len(members) < 2:
        raise ConfigError(
            f"An ensemble requires at least two runs, and only {len(members)} of these {len(runs)} can be used: a run "
            "must be finished, tested on all images, predict two classes, and must not have collapsed. Use more runs "
            "or sweeps, such as one with seed=0,1,2."
        )
    predictions = [read_predictions(run.folder, results).by_path() for run, results in members]
    first, data_hash = predictions[0], members[0][1]["data_hash"]
    for (run, results), other in zip(members, predictions, strict=True):
        same = other.paths == first.paths and np.array_equal(other.label, first.label)
        if not same or results["data_hash"] != data_hash:
            raise ConfigError(
                f"{run.folder} was tested on other images than {finished[0].folder}, so they cannot form an ensemble. "
                "Use runs with the same data."
            )
    probability = np.mean([each.probability for each in predictions], axis=0).astype(np.float32)
    threshold = float(np.float32(np.mean([float(results["threshold"]) for _, results in members])))
    odds = [each.odds for each in predictions if each.odds is not None]
    subtype = {line["path"]: line["subtype"] for line in read_splits(finished[0].folder)}
    combined = replace(
        first,
        probability=probability.astype(np.float64),
        predicted=predict_classes(probability, threshold),
        odds=log_odds(np.stack(odds)) if len(odds) == len(predictions) else None,
        subtypes=tuple(subtype.get(path, "none") for path in first.paths),
    )
    metrics = {"threshold": threshold, **summarise(combined)}
    left_out = tuple(f"{run.name} ({run.state})" for run in runs if run not in finished)
    return Ensemble(finished, left_out, combined, metrics)


def report_ensemble(ensemble: Ensemble, folder: Path | None) -> None:
    """Print the test metrics of an ensemble, and write them to ensemble/ in the folder unless it is None."""
    rich.print(_table(ensemble))
    print_line(
        "The positive class is predicted if the mean probability of the members is above the mean of their thresholds."
        + (f" Left out: {', '.join(ensemble.left_out)}." if ensemble.left_out else ""),
        style="dim",
        wrap=True,
    )
    if folder is not None:
        output = folder / "ensemble"
        write_predictions(output / "predictions.csv", ensemble.predictions)
        content = {"members": [str(run.folder) for run in ensemble.members], **ensemble.metrics}
        write_text(output / "ensemble.json", json.dumps(content, indent=2) + "\n")
        print_line(f"{'ensemble':<12} {output / 'ensemble.json'}")


def _table(ensemble: Ensemble) -> PlainTable:
    title = f"Ensemble of {len(ensemble.members)} runs, {len(ensemble.predictions.paths):,} test images"
    table = PlainTable(title, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("test")
    for column in ("ensemble", "95\u00a0% interval", "mean of members", "range of members"):
        table.add_column(column, justify="right")
    for name, metric in reported_metrics(*_ENSEMBLE_METRICS, subtype="  {}").items():
        value, low, high = recorded_estimate(ensemble.metrics, name)
        recorded = [run.results for run in ensemble.members if run.results and f"test_{name}" in run.results]
        values = [float(results[f"test_{name}"]) for results in recorded]
        if value != NO_IMAGE and values:
            cells = f"{value:.4f}", f"{low:.3f} to {high:.3f}", f"{np.mean(values):.4f}"
            table.add_row(metric, *cells, f"{min(values):.4f} to {max(values):.4f}")
    return table
