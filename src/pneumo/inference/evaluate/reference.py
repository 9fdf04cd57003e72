"""Internal reference: the predictions of a network for the test images of its own run."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr

from pneumo.errors import ConfigError
from pneumo.inference.batch_predictor import BatchPredictor
from pneumo.inference.export.formats import FORMATS
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.recalibration import margins
from pneumo.reporting.generalization import GeneralizationGap, measure_gap
from pneumo.runs.prediction_files import read_predictions
from pneumo.runs.results import Results, read_finished

_MIN_CORRELATION = 0.999  # of log odds that rounding and another device leave
_SETS = ("internal test", "external")
_CAUTION = "The internal test images come from the same source as the training images."


class Reference(NamedTuple):
    """Predictions for the internal test images."""

    predictions: Predictions
    threshold: float
    origin: str  # where the predictions come from, for readers
    results: Results | None = None  # content of the run's results.json; None if there is no run
    unverified_run: str | None = None  # name of the run, if it is not known to have trained the network


def find_reference(model: BatchPredictor, run: Path | None) -> Reference | str:
    """Return the internal test of a network, or the reason why there is none.

    It is read from `run` if given, else from the run folder that contains the checkpoint, else from the checkpoint.

    Raises:
        ConfigError: `run` is not a finished run with the network's classes, or one of its files is damaged.
    """
    rules, path = model.rules, model.path
    given = None if run is None else _read_run(run, model)
    if rules.positive_class is None:
        return "only networks with two classes have one"
    if given is not None:
        return given
    if path is not None and path.name == "best.ckpt" and (path.absolute().parents[1] / "results.json").is_file():
        return _read_run(path.absolute().parents[1], model)
    if (stored := model.network.internal_test()) is not None:
        return Reference(stored, rules.threshold, "stored in the checkpoint")
    return "the file of the network contains none; use --run RUN"


def compare_with_reference(
    reference: Reference | str, external: Predictions, threshold: float
) -> GeneralizationGap | str:
    """Split the drop from the internal to the external images, or return the reason why this is impossible."""
    if isinstance(reference, str):
        return reference
    for predictions, name in ((reference.predictions, "internal"), (external, "external")):
        if not predictions.has_both_classes:
            return f"the {name} images are all of one class"
    same = np.float32(reference.threshold) == np.float32(threshold)
    return measure_gap(reference.predictions, external)._replace(
        sets=_SETS, thresholds=None if same else (reference.threshold, threshold), caution=_CAUTION
    )


def _read_run(folder: Path, model: BatchPredictor) -> Reference:
    results, classes = read_finished(folder), model.rules.classes
    predictions = read_predictions(folder, results)
    if tuple(predictions.classes) != classes and set(filter(None, predictions.classes)) - set(classes):
        raise ConfigError(
            f"--run {folder} has the classes {', '.join(predictions.classes)}, but the network has "
            f"{', '.join(classes)}. Use the run that trained this network."
        )
    name, is_same = folder.resolve().name, is_trained_by(folder, model, predictions)
    if is_same is False and model.network.internal_test() is None:
        raise ConfigError(
            f"--run {folder}: its internal test belongs to its checkpoints/best.ckpt, whose weights differ from those "
            f"of {model.path}. Evaluate that checkpoint, or omit --run."
        )
    if is_same is False:
        raise ConfigError(
            f"The run {folder} did not train this network: its test predictions differ from those in the checkpoint. "
            "Use --run with the run that trained this network."
        )
    unverified = name if is_same is None else None
    return Reference(predictions, float(results["threshold"]), f"{name}/predictions.csv", results, unverified)


def is_trained_by(folder: Path, model: BatchPredictor, predictions: Predictions) -> bool | None:
    """Return whether a run with these test predictions trained a network; None if this cannot be verified."""
    stored = model.network.internal_test()
    return _same_weights(folder, model) if stored is None else _same_ranking(stored, predictions)


def _same_weights(folder: Path, model: BatchPredictor) -> bool | None:
    """Return whether a network has the weights of a run's best.ckpt; None if a file contains no weights."""
    from pneumo.models.checkpoint_reader import read_checkpoint  # imports torch

    best, path = folder / "checkpoints" / "best.ckpt", model.path
    if path is None or path.suffix.lower() in FORMATS or not best.is_file():
        return None
    if best.samefile(path):
        return True
    first, second = (read_checkpoint(each).get("state_dict") for each in (path, best))
    if first is None or second is None:  # an ensemble
        return False
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


def _same_ranking(stored: Predictions, recorded: Predictions) -> bool:
    """Return whether two tests agree up to calibration and rounding, which keep the order of the log odds."""
    if not np.array_equal(stored.label, recorded.label):
        return False
    correlation = spearmanr(margins(stored), margins(recorded)).statistic
    return not correlation < _MIN_CORRELATION  # NaN for constant log odds
