"""Writer of external tests of runs, without a network."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_softmax

from pneumo.metrics.definitions import METRICS, estimates
from pneumo.metrics.predictions import Predictions
from pneumo.runs.external_test_rules import METRIC_NAMES
from pneumo.runs.external_tests import ExternalTest, write_external_test

CLASSES = ("NORMAL", "PNEUMONIA")
SUBTYPES = ("NORMAL", "BACTERIAL", "VIRAL")


def draw_external(seed: int, images: int = 120, quality: float = 1.5) -> Predictions:
    """Draw binary predictions for images of which three belong to each patient; labels do not depend on the seed."""
    label = np.arange(images) % 2 > 0
    margin = np.random.default_rng(seed).normal(quality * label, 1)
    probability = expit(margin).astype(np.float32).astype(float)
    return Predictions.binary(probability, label, margin > 0, CLASSES, _paths(images), margin, _patients(images))


def draw_subtypes(seed: int, images: int = 120) -> Predictions:
    """Draw predictions of three classes."""
    label = np.arange(images) % 3
    logs = log_softmax(np.random.default_rng(seed).normal(0, 1, (images, 3)) + np.eye(3)[label], axis=1)
    odds = np.stack([logs[:, k] - np.logaddexp(*np.delete(logs, k, 1).T) for k in range(3)], 1)
    probability: NDArray[np.float64] = np.exp(logs).astype(np.float32).astype(float)
    return Predictions(probability, label, logs.argmax(1), SUBTYPES, odds, _paths(images), _patients(images))


def external_test(name: str, predictions: Predictions) -> ExternalTest:
    """Build a test with all metrics, which requires that all classes are present."""
    metrics = estimates(predictions, {each: METRICS[each] for each in METRIC_NAMES})
    threshold = 0.5 if predictions.is_binary else None
    return ExternalTest(name, "test", predictions, metrics, threshold, "0" * 64)


def record(run: Path, name: str, predictions: Predictions) -> Path:
    """Write an external test into a run folder; return the path of its JSON file."""
    return write_external_test(run, external_test(name, predictions))


def _paths(images: int) -> tuple[str, ...]:
    return tuple(f"scans/{index:03}.png" for index in range(images))


def _patients(images: int) -> tuple[str, ...]:
    return tuple(f"Doe^{index // 3}" for index in range(images))
