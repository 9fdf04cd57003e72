import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from pneumo.metrics.definitions import measure
from pneumo.metrics.predictions import Predictions, predict_classes


def ours(probability: np.ndarray, label: np.ndarray, threshold: float) -> dict[str, float]:
    columns = np.stack([1 - probability, probability], axis=1)
    return measure(Predictions(columns.astype(float), label, predict_classes(columns, threshold)))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(6, 300), threshold=st.sampled_from([0.0, 0.3, 0.5, 0.9]))
def test_scikit_learn_agrees(seed: int, size: int, threshold: float) -> None:
    generator = np.random.default_rng(seed)
    label = generator.permutation(np.arange(size) % 2)
    probability = np.clip(generator.normal(0.35 + 0.3 * label, 0.3), 0, 1).astype(np.float32)
    answer = (probability > threshold).astype(int)
    expected = {
        "accuracy": metrics.accuracy_score(label, answer),
        "auroc": metrics.roc_auc_score(label, probability),
        "sensitivity": metrics.recall_score(label, answer),
        "specificity": metrics.recall_score(label, answer, pos_label=0),
        "balanced_accuracy": metrics.balanced_accuracy_score(label, answer),
        "auprc": metrics.average_precision_score(label, probability),
        "f1": metrics.f1_score(label, answer),
        "mcc": metrics.matthews_corrcoef(label, answer),
        "brier": metrics.brier_score_loss(label, probability),
    }
    found = ours(probability, label, threshold)
    assert found.keys() == {*expected, "ece"}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name


def test_the_calibration_error_of_a_known_case() -> None:
    # One bin of ten images called 0.9, seven of them positive; one of ten called 0.1, none of them.
    probability = np.repeat([0.9, 0.1], 10).astype(np.float32)
    label = np.array([1] * 7 + [0] * 13)
    assert ours(probability, label, 0.5)["ece"] == pytest.approx((0.2 + 0.1) / 2, abs=1e-6)


@pytest.mark.parametrize(("normal", "ill"), [(234, 390), (2, 4), (1, 7), (1341, 3875), (100_003, 299_993)])
def test_answers_that_are_all_right_or_all_wrong_correlate_exactly(normal: int, ill: int) -> None:
    label = (np.arange(normal + ill) < ill).astype(int)
    assert ours(label.astype(np.float32), label, 0.5)["mcc"] == 1.0
    assert ours(1 - label.astype(np.float32), label, 0.5)["mcc"] == -1.0


def test_an_answer_that_never_varies_has_balanced_accuracy_one_half() -> None:
    found = ours(np.full(624, 0.9, np.float32), (np.arange(624) < 390).astype(int), 0.5)
    assert found["accuracy"] == pytest.approx(0.625)
    assert found["balanced_accuracy"] == pytest.approx(0.5)
