"""Writer of the files of finished and failed runs, without a run."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from pneumo.metrics.predictions import Predictions
from pneumo.metrics.summary import count_outcomes
from pneumo.runs.prediction_files import write_predictions
from pneumo.runs.result_rules import RESULT_NAMES
from pneumo.runs.results import Results, Value, write_results
from pneumo.runs.status import Status, write_status

CLASSES = ("NORMAL", "PNEUMONIA")
# Valid results with all documented keys; rates are 0.5.
RESULTS: Results = {
    **dict.fromkeys(RESULT_NAMES, 0.5),
    **dict.fromkeys(("model", "optimizer", "experiment", "precision", "device", "config_hash"), "any"),
    **dict.fromkeys(("data_hash", "git_commit", "torch_version", "pneumo_version", "settings_hash"), "0.5"),
    **dict.fromkeys(("seed", "best_epoch", "epochs", "fold", "folds", "peak_memory_bytes"), 0),
    **dict.fromkeys(("image_size", "batch_size", "parameters_total", "parameters_trainable"), 1),
    **{"status": "done", "task": "pneumonia", "data": "chest_xray", "split": "official", "threshold_rule": "any"},
    **{"collapsed": False, "feature_cache": False},
    **dict.fromkeys(("test_true_positives", "test_true_negatives", "test_false_positives", "test_false_negatives"), 1),
}


def write_run(
    folder: Path, model: str, optimizer: str, seed: int, wrong: int, images: int = 624, first: int = 0, **other: Value
) -> None:
    """Write the files of a run with `wrong` misclassified images, starting at index `first`."""
    label = np.arange(images) % 8 >= 3  # 390 of 624, as in the real test set
    prediction = label.copy()
    prediction[first : first + wrong] ^= True
    probability = np.where(prediction, 0.9, 0.1) + np.random.default_rng(seed).uniform(-0.05, 0.05, images)
    paths = [f"test/{i}.jpeg" for i in range(images)]
    rounded = probability.astype(np.float32).astype(float)
    predictions = Predictions.binary(rounded, label, prediction, CLASSES, tuple(paths))
    write_predictions(folder / "predictions.csv", predictions)
    results: Results = {
        **RESULTS,
        **{"model": model, "optimizer": optimizer, "seed": seed},
        **_count(label, prediction),
        "train_accuracy": 0.95,
        "test_balanced_accuracy": float(balanced_accuracy_score(label, prediction)),
        "test_auroc": float(roc_auc_score(label, probability)),
        "train_seconds": 75.0,
        **other,
    }
    write_results(folder / "results.json", results)


def write_failed_run(
    folder: Path, model: str, optimizer: str, status: str = "failed", reason: str = "no image"
) -> None:
    folder.mkdir(parents=True)
    write_status(folder, Status("now", status, reason, "", model, optimizer, 0, "study", ""))


def write_outputs(
    path: Path,
    label: NDArray[np.bool_],
    probability: NDArray[np.float64],
    margin: NDArray[np.float64] | None = None,
    threshold: float = 0.5,
) -> None:
    """Write predictions.csv or validation.csv."""
    images = tuple(f"{path.stem}/{i}.jpeg" for i in range(len(label)))
    rounded, predicted = probability.astype(np.float32).astype(float), probability > threshold
    write_predictions(path, Predictions.binary(rounded, label, predicted, CLASSES, images, margin))
    if path.name == "predictions.csv" and (results := path.with_name("results.json")).is_file():
        earlier = json.loads(results.read_text())
        write_results(results, {**earlier, **_count(label, predicted), "collapsed": earlier["collapsed"]})


def _count(label: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> Results:
    """Return the counts of a test, and the rates computed from them."""
    counts = count_outcomes(label.astype(int), prediction.astype(int))
    correct = label == prediction
    rates = {"accuracy": correct, "sensitivity": correct[label], "specificity": correct[~label]}
    return {**counts, **{f"test_{name}": float(values.mean()) for name, values in rates.items() if len(values)}}
