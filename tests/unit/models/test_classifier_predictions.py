from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import expit, logsumexp
from sklearn.metrics import average_precision_score, roc_auc_score
from torchmetrics.functional import classification as functional

from pneumo.common.input_format import InputFormat
from pneumo.metrics.definitions import measure
from pneumo.metrics.predictions import Predictions
from pneumo.models.classifier import Classifier
from pneumo.models.hyperparameters import PredictionOptions
from pneumo.models.logits import log_odds


def saturated(classes: int, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Return logits (400, classes) whose probabilities mostly round to 0 or 1, and their labels."""
    generator = np.random.default_rng(seed)
    label = np.arange(400) % classes
    logits = generator.normal(0, 20, (400, classes)) + 30 * np.eye(classes)[label]
    logits[:, -1] += 40  # single precision is finer near 0 than near 1
    return torch.from_numpy(logits).float(), label


def predict(logits: torch.Tensor, label: np.ndarray) -> Predictions:
    classifier = Classifier("pneumo/xraychestnet", ["A", "B", "C"][: logits.shape[1]], InputFormat(32))
    return classifier.predictions(logits, torch.from_numpy(label), 0.5)


@pytest.mark.parametrize("classes", [2, 3])
def test_sigmoid_of_log_odds_is_the_probability(classes: int) -> None:
    logits = torch.randn(50, classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(log_odds(logits).sigmoid(), logits.softmax(1))


def test_margin_is_the_difference_of_scaled_logits() -> None:
    classifier = Classifier(
        "pneumo/xraychestnet", ["NORMAL", "PNEUMONIA"], InputFormat(32), prediction=PredictionOptions(temperature=2.0)
    )
    logits = torch.tensor([[-30.0, 40.0], [3.0, 1.0]])
    assert classifier.predictions(logits, torch.zeros(2), 0.5).score.tolist() == [35.0, -1.0]


def test_log_odds_of_three_classes_are_one_vs_rest() -> None:
    classifier = Classifier("pneumo/xraychestnet", ["A", "B", "C"], InputFormat(32))
    logits = np.array([[50.0, 10.0, 11.0]])
    rest = [logsumexp(np.delete(logits[0], k)) for k in range(3)]
    found = classifier.predictions(torch.from_numpy(logits), torch.zeros(1), 0.5)
    assert found.odds is not None
    np.testing.assert_allclose(found.odds, logits - rest, rtol=1e-6)


def test_metrics_of_two_classes_rank_by_margin() -> None:
    logits, label = saturated(2)
    margin, probability = log_odds(logits)[:, 1], logits.softmax(1)[:, 1]
    expected = roc_auc_score(label, margin)
    assert roc_auc_score(label, probability) < expected - 1e-3  # otherwise the test is vacuous
    found = measure(predict(logits, label))
    assert found["auroc"] == pytest.approx(expected, abs=1e-9)
    assert found["auprc"] == pytest.approx(average_precision_score(label, margin), abs=1e-9)
    assert found["brier"] == pytest.approx(float(np.mean((expit(margin.numpy()) - label) ** 2)), abs=1e-6)


def test_metrics_of_three_classes_rank_by_log_odds() -> None:
    logits, label = saturated(3)
    odds, truth = log_odds(logits).numpy(), np.eye(3)[label]
    found = measure(predict(logits, label))
    assert found["auroc"] == pytest.approx(roc_auc_score(truth, odds, average="macro"), abs=1e-9)
    assert found["auprc"] == pytest.approx(average_precision_score(truth, odds, average="macro"), abs=1e-9)
    plain = measure(replace(predict(logits, label), odds=None))
    assert plain["auroc"] < found["auroc"] - 1e-4
    assert plain["accuracy"] == found["accuracy"]


@pytest.mark.parametrize("classes", [2, 3])
def test_metrics_equal_torchmetrics(classes: int) -> None:
    logits = torch.randn(300, classes, generator=torch.Generator().manual_seed(0)).mul(2).float()
    label = np.arange(300) % classes
    probability, truth, found = logits.softmax(1), torch.from_numpy(label), measure(predict(logits, label))
    if classes == 2:
        reference: dict[str, Callable[..., torch.Tensor]] = {
            "accuracy": functional.binary_accuracy,
            "auroc": functional.binary_auroc,
            "auprc": functional.binary_average_precision,
            "sensitivity": functional.binary_recall,
            "specificity": functional.binary_specificity,
            "f1": functional.binary_f1_score,
            "mcc": functional.binary_matthews_corrcoef,
            "ece": functional.binary_calibration_error,
        }
        expected = {name: function(probability[:, 1].contiguous(), truth) for name, function in reference.items()}
    else:
        multiclass: dict[str, Callable[..., torch.Tensor]] = {
            "auroc": functional.multiclass_auroc,
            "auprc": functional.multiclass_average_precision,
            "sensitivity": functional.multiclass_recall,
            "specificity": functional.multiclass_specificity,
            "balanced_accuracy": functional.multiclass_recall,
            "f1": functional.multiclass_f1_score,
            "mcc": functional.multiclass_matthews_corrcoef,
            "ece": functional.multiclass_calibration_error,
        }
        expected = {name: function(probability, truth, num_classes=3) for name, function in multiclass.items()}
        expected["accuracy"] = functional.multiclass_accuracy(probability, truth, num_classes=3, average="micro")
    for name, value in expected.items():
        assert found[name] == pytest.approx(value.item(), abs=1e-6), name
