"""An ensemble of runs: the mean of their probabilities, tested once more."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pneumo.console import PlainTable
from pneumo.data.splits import read_splits
from pneumo.errors import ConfigError
from pneumo.evaluation.answers import Predictions, log_odds, predict_classes
from pneumo.evaluation.prediction_files import read_predictions, write_predictions
from pneumo.evaluation.results import NO_IMAGE, SUBTYPES, TITLES, Results
from pneumo.evaluation.runs import Run
from pneumo.evaluation.summary import summarise
from pneumo.files import write_text

_SHOWN = {name: TITLES[name] for name in ("accuracy", "auroc", "balanced_accuracy", "sensitivity")}
_SHOWN |= {f"sensitivity_{subtype}": f"  to {subtype}" for subtype in SUBTYPES}
_SHOWN |= {name: TITLES[name] for name in ("specificity", "ece", "brier")}


class Ensemble(NamedTuple):
    """Several runs that answer together.

    Attributes:
        members: The runs.
        left_out: Names of others, with the reason.
        answers: To the test images, in the order of their paths.
        figures: As in results.json: the test's metrics with their intervals, counts, and the threshold.
    """

    members: tuple[Run, ...]
    left_out: tuple[str, ...]
    answers: Predictions
    figures: Results


def combine(runs: Sequence[Run]) -> Ensemble:
    """Average the probabilities that runs have given to the same test images, and their thresholds.

    Each run has chosen its threshold on images that others were trained on, so that none could be chosen for all anew.

    Raises:
        ConfigError: There are not two finished runs of two classes, or they were tested on different images.
    """
    finished = [run for run in runs if run.state == "done" and run.results and run.results["task"] == "pneumonia"]
    members = [(run, run.results) for run in finished if run.results]
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
    return Ensemble(tuple(finished), left_out, combined, figures)


def write_ensemble(folder: Path, ensemble: Ensemble) -> None:
    """Write predictions.csv and ensemble.json, which tells the members and their joint test."""
    write_predictions(folder / "predictions.csv", ensemble.answers)
    about = {"members": [str(run.folder) for run in ensemble.members], **ensemble.figures}
    write_text(folder / "ensemble.json", json.dumps(about, indent=2) + "\n")


def to_terminal(ensemble: Ensemble) -> PlainTable:
    """Lay out the ensemble's metrics beside those of its members."""
    head = f"Ensemble of {len(ensemble.members)} runs, {len(ensemble.answers.paths):,} test images"
    table = PlainTable(head, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("test")
    for column in ("ensemble", "95\u00a0% interval", "members' mean", "their range"):
        table.add_column(column, justify="right")
    for name, title in _SHOWN.items():
        value, low, high = (ensemble.figures[f"test_{name}{end}"] for end in ("", "_ci_low", "_ci_high"))
        if value != NO_IMAGE:
            each = [float(run.results[f"test_{name}"]) for run in ensemble.members if run.results]
            texts = f"{value:.4f}", f"{low:.3f} to {high:.3f}", f"{np.mean(each):.4f}"
            table.add_row(title, *texts, f"{min(each):.4f} to {max(each):.4f}")
    return table
