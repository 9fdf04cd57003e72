import numpy as np
import pytest
from scipy.special import logit
from sklearn.metrics import roc_auc_score

from pneumo.metrics.predictions import Predictions

PROBABILITY = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.4, 0.35, 0.25], [0.2, 0.5, 0.3]])
THREE = Predictions(
    PROBABILITY,
    np.array([0, 2, 1, 0]),
    PROBABILITY.argmax(1),
    ("NORMAL", "BACTERIAL", "VIRAL"),
    logit(PROBABILITY),
    ("a", "b", "c", "d"),
    ("p", "q", "q", "r"),
    ("none", "viral", "bacterial", "none"),
)


def test_positive_classes_are_combined() -> None:
    binary = THREE.as_binary()
    assert binary.is_binary
    assert binary.positive.tolist() == THREE.positive.tolist()
    assert binary.predicted.tolist() == [0, 1, 0, 1]
    assert binary.positive_probability == pytest.approx(1 - PROBABILITY[:, 0])
    assert binary.margin == pytest.approx(logit(1 - PROBABILITY[:, 0]))
    assert binary.classes == ("NORMAL", "BACTERIAL or VIRAL")
    assert (binary.paths, binary.patients, binary.subtypes) == (THREE.paths, THREE.patients, THREE.subtypes)
    assert roc_auc_score(binary.label, binary.score) == roc_auc_score(THREE.positive, 1 - PROBABILITY[:, 0])


def test_binary_predictions_are_returned_unchanged() -> None:
    binary = THREE.as_binary()
    assert binary.as_binary() is binary


def test_rounded_probabilities_stay_within_their_range() -> None:
    third = np.array([[0.0, 1 / 3, 2 / 3 + 1e-7]])
    binary = Predictions(third, np.array([1]), np.array([2])).as_binary()
    assert binary.probability.min() >= 0
    assert binary.probability.max() <= 1
    assert binary.margin is None
