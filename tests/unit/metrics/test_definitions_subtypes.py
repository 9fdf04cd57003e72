from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    matthews_corrcoef,
    recall_score,
    roc_auc_score,
)

from pneumo.metrics.bootstrap import Resamples
from pneumo.metrics.definitions import METRICS, estimates, measure
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.subtypes import SUBTYPE_METRICS
from pneumo.metrics.summary import summarise

SUBTYPES = ("none", "bacterial", "viral")


def build(label: np.ndarray, probability: np.ndarray) -> Predictions:
    subtypes = tuple(SUBTYPES[k] for k in label)
    return Predictions(probability.astype(float), label, probability.argmax(1), subtypes=subtypes)


def draw(seed: int = 0, count: int = 300) -> Predictions:
    random = np.random.default_rng(seed)
    label = random.integers(0, 3, count)
    logits = random.normal(0, 1, (count, 3)) + 1.5 * np.eye(3)[label]
    return build(label, softmax(logits, axis=1).astype(np.float32))


def test_metrics_equal_scikit_learn() -> None:
    predictions = draw()
    label, prediction, found = predictions.label, predictions.predicted, measure(predictions)
    truth = label[:, None] == np.arange(3)
    probability = predictions.probability / predictions.probability.sum(1, keepdims=True)
    macro = {"average": "macro"}
    assert found["accuracy"] == pytest.approx(accuracy_score(label, prediction))
    assert found["auroc"] == pytest.approx(
        roc_auc_score(label, probability, multi_class="ovr", average="macro"), abs=1e-6
    )
    assert found["auprc"] == pytest.approx(average_precision_score(truth, probability, **macro), abs=1e-6)
    assert found["sensitivity"] == pytest.approx(recall_score(label, prediction, **macro))
    assert found["f1"] == pytest.approx(f1_score(label, prediction, **macro))
    assert found["mcc"] == pytest.approx(matthews_corrcoef(label, prediction))
    assert found["brier"] == pytest.approx(((probability - truth) ** 2).sum(1).mean(), abs=1e-6)


def test_weights_equal_repeated_images() -> None:
    predictions = draw(1, 60)
    weights = np.random.default_rng(2).integers(0, 3, 60)
    resamples = Resamples(predictions, weights[None].astype(np.float64))
    repeated = measure(predictions.take(np.repeat(np.arange(60), weights)))
    for name in METRICS:
        assert METRICS[name].compute(resamples)[0] == pytest.approx(repeated[name]), name


def test_summary_contains_intervals_and_subtype_metrics() -> None:
    predictions = draw()
    label, probability, prediction, found = (
        predictions.label,
        predictions.probability,
        predictions.predicted,
        summarise(predictions),
    )
    for name in METRICS:
        low, value, high = (float(found[f"test_{name}{end}"]) for end in ("_ci_low", "", "_ci_high"))
        assert low < value < high, name
    assert found["test_sensitivity_viral"] == pytest.approx((prediction[label == 2] == 2).mean())
    ill = label > 0
    viral = probability[ill, 2] / probability[ill, 1:].sum(1)
    assert found["test_auroc_bacterial_viral"] == pytest.approx(roc_auc_score(label[ill] == 2, viral))
    positives = int(found["test_true_positives"]) + int(found["test_false_negatives"])
    assert positives == ill.sum()


def test_metrics_of_an_absent_class_are_placeholders() -> None:
    predictions = draw()
    found = summarise(predictions.take(np.flatnonzero(predictions.label < 2)))
    assert found["test_sensitivity_viral"] == found["test_auroc_bacterial_viral"] == -1.0
    assert (found["test_auroc_ci_low"], found["test_auroc_ci_high"]) == (0.0, 1.0)


@pytest.mark.parametrize("predicted", [(1, 1, 1), (0, 1, 1), (0, 1, 2)])
def test_intervals_have_a_positive_width_without_variation_within_classes(predicted: tuple[int, int, int]) -> None:
    label = np.repeat([0, 1, 2], [234, 242, 148])
    prediction = np.array(predicted)[label]
    probability = (0.7 * np.eye(3)[prediction] + 0.1).astype(np.float32)
    found = summarise(build(label, probability))
    for name in ("sensitivity", "specificity", "balanced_accuracy", "f1", "mcc"):
        value, low, high = (float(found[f"test_{name}{end}"]) for end in ("", "_ci_low", "_ci_high"))
        assert low < value + 1e-12, name
        assert value < high + 1e-12, name
        assert high - low > 0.002, name


@pytest.mark.parametrize("images", [[0], [0, 1], [0, 1, 2], [0, 0, 1, 1, 2, 2]])
@pytest.mark.parametrize("output", ["right", "wrong", "even"])
def test_all_intervals_have_a_positive_width(images: list[int], output: str) -> None:
    label = np.array(images)
    outputs = {
        "right": np.eye(3)[label],
        "wrong": np.eye(3)[(label + 1) % 3],
        "even": np.full((len(label), 3), 1 / 3),
    }
    for name, (value, low, high) in estimates(build(label, outputs[output])).items():
        bottom, top = METRICS[name].whole_range(3)
        assert bottom <= low < high - 1e-6 < high <= top, name
        assert low <= value <= high, name


def test_weights_equal_repeated_images_for_subtype_metrics() -> None:
    predictions = draw(1, 60)
    weights = np.random.default_rng(2).integers(0, 3, 60)
    resamples = Resamples(predictions, weights[None].astype(np.float64))
    repeated = estimates(predictions.take(np.repeat(np.arange(60), weights)), SUBTYPE_METRICS)
    for name, metric in SUBTYPE_METRICS.items():
        assert metric.compute(resamples)[0] == pytest.approx(repeated[name].value), name


@pytest.mark.parametrize("names", [("NORMAL", "TB", "COVID"), ("NORMAL", "VIRAL", "BACTERIAL")])
def test_other_classes_than_the_subtypes_have_no_auroc_of_subtypes(names: tuple[str, ...]) -> None:
    predictions = draw()
    assert summarise(replace(predictions, classes=("NORMAL", "BACTERIAL", "VIRAL"))) == summarise(predictions)
    assert summarise(replace(predictions, classes=names))["test_auroc_bacterial_viral"] == -1.0


def test_four_classes_have_no_auroc_of_subtypes() -> None:
    label = np.arange(80) % 4
    found = summarise(Predictions(np.full((80, 4), 0.25), label, label, ("A", "B", "C", "D")))
    assert (found["test_accuracy"], found["test_auroc_bacterial_viral"]) == (1.0, -1.0)
