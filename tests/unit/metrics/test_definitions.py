import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from pneumo.metrics.definitions import measure
from pneumo.metrics.predictions import Predictions, predict_classes


def measured(probability: np.ndarray, label: np.ndarray, threshold: float) -> dict[str, float]:
    columns = np.stack([1 - probability, probability], axis=1)
    return measure(Predictions(columns.astype(float), label, predict_classes(columns, threshold)))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(6, 300), threshold=st.sampled_from([0.0, 0.3, 0.5, 0.9]))
def test_metrics_equal_scikit_learn(seed: int, size: int, threshold: float) -> None:
    generator = np.random.default_rng(seed)
    label = generator.permutation(np.arange(size) % 2)
    probability = np.clip(generator.normal(0.35 + 0.3 * label, 0.3), 0, 1).astype(np.float32)
    predicted = (probability > threshold).astype(int)
    expected = {
        "accuracy": metrics.accuracy_score(label, predicted),
        "auroc": metrics.roc_auc_score(label, probability),
        "sensitivity": metrics.recall_score(label, predicted),
        "specificity": metrics.recall_score(label, predicted, pos_label=0),
        "balanced_accuracy": metrics.balanced_accuracy_score(label, predicted),
        "auprc": metrics.average_precision_score(label, probability),
        "f1": metrics.f1_score(label, predicted),
        "mcc": metrics.matthews_corrcoef(label, predicted),
        "brier": metrics.brier_score_loss(label, probability),
    }
    found = measured(probability, label, threshold)
    assert found.keys() == {*expected, "ece"}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name


def test_calibration_error_of_a_known_case() -> None:
    # Ten images at 0.9, seven of them positive; ten images at 0.1, all negative.
    probability = np.repeat([0.9, 0.1], 10).astype(np.float32)
    label = np.array([1] * 7 + [0] * 13)
    assert measured(probability, label, 0.5)["ece"] == pytest.approx((0.2 + 0.1) / 2, abs=1e-6)


@pytest.mark.parametrize(("negatives", "positives"), [(234, 390), (2, 4), (1, 7), (1341, 3875), (100_003, 299_993)])
def test_mcc_is_exactly_one_or_minus_one_for_perfect_or_inverted_predictions(negatives: int, positives: int) -> None:
    label = (np.arange(negatives + positives) < positives).astype(int)
    assert measured(label.astype(np.float32), label, 0.5)["mcc"] == 1.0
    assert measured(1 - label.astype(np.float32), label, 0.5)["mcc"] == -1.0


def test_balanced_accuracy_of_a_constant_prediction_is_one_half() -> None:
    found = measured(np.full(624, 0.9, np.float32), (np.arange(624) < 390).astype(int), 0.5)
    assert found["accuracy"] == pytest.approx(0.625)
    assert found["balanced_accuracy"] == pytest.approx(0.5)
