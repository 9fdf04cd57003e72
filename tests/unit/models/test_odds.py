import numpy as np
import pytest
import torch
from scipy.special import expit, logsumexp
from sklearn.metrics import average_precision_score, roc_auc_score

from pneumo.evaluation.metrics import make_metrics
from pneumo.models.classifier import Classifier
from pneumo.models.hparams import PredictionOptions
from pneumo.models.odds import log_odds


def saturated(classes: int, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Return logits (400, classes) whose probabilities mostly round to 0 or 1, and their labels."""
    generator = np.random.default_rng(seed)
    label = np.arange(400) % classes
    logits = generator.normal(0, 20, (400, classes)) + 30 * np.eye(classes)[label]
    logits[:, -1] += 40  # single precision is finer near 0 than near 1
    return torch.from_numpy(logits).float(), label


@pytest.mark.parametrize("classes", [2, 3])
def test_the_sigmoid_of_the_log_odds_is_the_probability(classes: int) -> None:
    logits = torch.randn(50, classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(log_odds(logits).sigmoid(), logits.softmax(1))


def test_the_margin_is_the_difference_of_logits_after_the_temperature() -> None:
    classifier = Classifier(
        "pneumo/xraychestnet", ["NORMAL", "PNEUMONIA"], image_size=32, prediction=PredictionOptions(temperature=2.0)
    )
    logits = torch.tensor([[-30.0, 40.0], [3.0, 1.0]])
    assert classifier.margin(logits).tolist() == [35.0, -1.0]


def test_the_margin_of_three_classes_is_each_against_the_rest() -> None:
    classifier = Classifier("pneumo/xraychestnet", ["A", "B", "C"], image_size=32)
    logits = np.array([[50.0, 10.0, 11.0]])
    rest = [logsumexp(np.delete(logits[0], k)) for k in range(3)]
    np.testing.assert_allclose(classifier.margin(torch.from_numpy(logits)).numpy(), logits - rest, rtol=1e-6)


def test_metrics_of_two_classes_rank_by_the_margin() -> None:
    logits, label = saturated(2)
    margin, probability = log_odds(logits)[:, 1], logits.softmax(1)[:, 1]
    expected = roc_auc_score(label, margin)
    assert roc_auc_score(label, probability) < expected - 1e-3  # else the test shows nothing
    metrics = make_metrics(2, 0.5)
    for part in np.array_split(np.arange(len(label)), 3):
        metrics.update(probability[part], torch.from_numpy(label[part]), score=margin[part])
    found = metrics.compute()
    assert float(found["auroc"]) == pytest.approx(expected, abs=1e-6)
    assert float(found["auprc"]) == pytest.approx(average_precision_score(label, margin), abs=1e-6)
    assert float(found["brier"]) == pytest.approx(float(np.mean((expit(margin.numpy()) - label) ** 2)), abs=1e-6)


def test_metrics_of_three_classes_rank_by_the_margins() -> None:
    logits, label = saturated(3)
    odds, truth = log_odds(logits).numpy(), np.eye(3)[label]
    metrics = make_metrics(3, 0.5)
    found = metrics(logits.softmax(1), torch.from_numpy(label), score=torch.from_numpy(odds))
    assert float(found["auroc"]) == pytest.approx(roc_auc_score(truth, odds, average="macro"), abs=1e-6)
    assert float(found["auprc"]) == pytest.approx(average_precision_score(truth, odds, average="macro"), abs=1e-6)
    plain = make_metrics(3, 0.5)(logits.softmax(1), torch.from_numpy(label))
    assert float(plain["auroc"]) < float(found["auroc"]) - 1e-4
    assert float(plain["accuracy"]) == float(found["accuracy"])


def test_metrics_without_scores_rank_by_the_probability() -> None:
    logits, label = saturated(2)
    probability = (logits / 40).softmax(1)[:, 1]
    found = make_metrics(2, 0.5)(probability, torch.from_numpy(label))
    assert float(found["auroc"]) == pytest.approx(roc_auc_score(label, probability), abs=1e-6)
