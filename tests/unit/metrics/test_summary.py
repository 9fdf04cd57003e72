import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import reference_metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from pneumo.common import SUBTYPES
from pneumo.metrics.bootstrap import bootstrap
from pneumo.metrics.definitions import METRICS, estimates, measure
from pneumo.metrics.intervals import Interval, mean_interval, wilson
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.significance import delong_interval, placements
from pneumo.metrics.subtypes import SUBTYPE_METRICS
from pneumo.metrics.summary import count_outcomes, estimate_keys, reported_metrics, summarise
from pneumo.runs.prediction_files import write_predictions
from pneumo.runs.result_rules import RESULT_NAMES

POSITIVE = np.arange(624) < 390
CLASSES = ("NORMAL", "PNEUMONIA")
SENSITIVITIES = ["sensitivity", "sensitivity_bacterial", "sensitivity_viral"]


def metric_intervals(predictions: Predictions) -> dict[str, Interval]:
    return {name: (estimate.low, estimate.high) for name, estimate in estimates(predictions).items()}


def draw(seed: int, sensitivity: float, specificity: float, scale: float = 2) -> Predictions:
    """Draw predictions for a test set of the study's size; scores are normally distributed in each class."""
    threshold = norm.ppf(specificity)
    scores = np.random.default_rng(seed).normal(POSITIVE * (threshold + norm.ppf(sensitivity)), 1) - threshold
    probability = (1 / (1 + np.exp(-scale * scores))).astype(np.float32)
    return Predictions.binary(probability.astype(float), POSITIVE, probability > 0.5)


def test_outcomes_are_counted() -> None:
    label = np.array([0] * 20 + [1] * 80)
    prediction = np.array([0] * 15 + [1] * 5 + [0] * 14 + [1] * 66)
    assert count_outcomes(label, prediction) == {
        "test_true_positives": 66,
        "test_false_positives": 5,
        "test_true_negatives": 15,
        "test_false_negatives": 14,
        "collapsed": False,
    }


@pytest.mark.parametrize("predicted", [0, 1])
def test_a_single_predicted_class_is_a_collapse(predicted: int) -> None:
    assert count_outcomes(np.array([0, 1, 1]), np.full(3, predicted))["collapsed"] is True


def test_summary_equals_the_reference_implementation(tmp_path: Path) -> None:
    drawn = draw(1, 0.96, 0.7)
    probability = np.round(drawn.positive_probability, 2).astype(np.float32).astype(float)  # with many ties
    subtypes = tuple(SUBTYPES[i % 2] if ill else "none" for i, ill in enumerate(POSITIVE))
    prefix = {"none": "x", "bacterial": "person1_bacteria_", "viral": "person1_virus_"}
    paths = tuple(f"test/{prefix[subtype]}{i}.jpeg" for i, subtype in enumerate(subtypes))
    predictions = Predictions.binary(probability, POSITIVE, probability > 0.5, CLASSES, paths)
    write_predictions(tmp_path / "predictions.csv", predictions)
    patients = tuple(f"{i % 60}" if i % 5 else f"alone{i}" for i in range(624))  # some with both classes
    lines = [f"{path},test,X,none,{patient}" for path, patient in zip(paths, patients, strict=True)]
    (tmp_path / "splits.csv").write_text("\n".join(["path,split,class,subtype,patient", *lines]))
    reference_metrics.check_results(summarise(replace(predictions, patients=patients, subtypes=subtypes)), tmp_path)


@pytest.mark.parametrize("only", [0, 1])
def test_intervals_without_a_required_class_are_the_whole_range(only: int) -> None:
    probability = np.linspace(0.1, 0.9, 20)
    found = summarise(Predictions.binary(probability, np.full(20, only > 0), probability > 0.5))
    assert found.keys() <= set(RESULT_NAMES)
    json.dumps(found, allow_nan=False)
    for name in ("auroc", "balanced_accuracy", "auprc", "f1"):
        assert (found[f"test_{name}_ci_low"], found[f"test_{name}_ci_high"]) == (0, 1)
    assert (found["test_mcc_ci_low"], found["test_mcc_ci_high"]) == (-1, 1)
    absent, present = ("sensitivity", "specificity") if only == 0 else ("specificity", "sensitivity")
    assert (found[f"test_{absent}_ci_low"], found[f"test_{absent}_ci_high"]) == (0, 1)
    assert (found[f"test_{present}_ci_low"], found[f"test_{present}_ci_high"]) == pytest.approx(wilson(10, 20))
    for subtype in SUBTYPES:
        assert [found[f"test_sensitivity_{subtype}{end}"] for end in ("", "_ci_low", "_ci_high")] == [-1, 0, 1]


def test_intervals_of_perfect_predictions_have_a_positive_width() -> None:
    found = metric_intervals(Predictions.binary(np.where(POSITIVE, 0.99, 0.01), POSITIVE, POSITIVE))
    assert found["auroc"] == pytest.approx(wilson(234, 234))
    assert found["auprc"] == pytest.approx(wilson(390, 390))
    for name in ("accuracy", "sensitivity", "specificity", "balanced_accuracy", "f1", "mcc"):
        low, high = found[name]
        assert 0.96 < low < 0.998 or name == "mcc", name
        assert high == 1
    assert 0.93 < found["mcc"][0] < 0.99


@pytest.mark.parametrize("predicted", [True, False])
def test_intervals_of_a_single_predicted_class_have_a_positive_width(predicted: bool) -> None:
    found = metric_intervals(Predictions.binary(np.full(624, 0.9), POSITIVE, np.full(624, predicted)))
    for name, value in (("balanced_accuracy", 0.5), ("mcc", 0.0)):
        low, high = found[name]
        assert value - 0.15 < low <= value < high < value + 0.15, name
    low, high = found["f1"]
    assert (0.74 < low < 0.77 < high < 0.78) if predicted else (low == 0 < high < 0.03)


@settings(max_examples=25, deadline=None)
@given(
    images=st.lists(st.tuples(st.booleans(), st.sampled_from([0, 1 / 15, 0.5, 0.9, 1])), min_size=1, max_size=6),
    output=st.sampled_from([None, 0.0, 0.5, 1.0, "right", "wrong"]),
)
def test_all_intervals_have_a_positive_width(images: list[tuple[bool, float]], output: float | str | None) -> None:
    positive = np.array([ill for ill, _ in images])
    probability = np.array([each for _, each in images])
    if output is not None:
        probability = np.full(len(images), output) if isinstance(output, float) else positive ^ (output == "wrong")
    predictions = Predictions.binary(probability.astype(float), positive, probability > 0.5)
    values = measure(predictions)
    for name, (low, high) in metric_intervals(predictions).items():
        assert METRICS[name].range[0] <= low < high - 1e-6 < high <= 1, name
        assert low <= values[name] <= high, name


def test_auroc_interval_of_equal_probabilities_follows_from_the_wilson_interval() -> None:
    found = metric_intervals(Predictions.binary(np.full(624, 0.9), POSITIVE, np.ones(624, bool)))
    differ = 1 - wilson(234, 234)[0]  # of the smaller class
    assert found["auroc"] == pytest.approx((0.5 - differ / 2, 0.5 + differ / 2))
    for name, value in (("auprc", 0.625), ("brier", 0.625 * 0.01 + 0.375 * 0.81), ("ece", 0.275)):
        low, high = found[name]
        assert value - 0.01 < low < value < high < value + 0.01, name


def test_ranking_metrics_of_a_single_positive_image_have_the_whole_range() -> None:
    found = metric_intervals(Predictions.binary(np.linspace(0, 1, 20), np.arange(20) == 19, np.arange(20) > 9))
    assert found["auroc"] == found["auprc"] == (0, 1)


@pytest.mark.parametrize("fraction", [0.6, 0.8, 0.95, 0.99])
@pytest.mark.parametrize("total", [148, 234, 390])
def test_wilson_interval_has_nominal_coverage_near_one(fraction: float, total: int) -> None:
    intervals = [wilson(hits, total) for hits in range(total + 1)]
    covering = np.array([low <= fraction <= high for low, high in intervals])
    assert 0.93 <= binom.pmf(np.arange(total + 1), total, fraction)[covering].sum() <= 0.985  # discrete for few errors


@pytest.mark.parametrize(("sensitivity", "specificity"), [(0.7, 0.7), (0.99, 0.6)])
def test_auroc_interval_has_nominal_coverage(sensitivity: float, specificity: float) -> None:
    truth = norm.cdf((norm.ppf(sensitivity) + norm.ppf(specificity)) / np.sqrt(2))
    intervals = [
        delong_interval(placements(draw(seed, sensitivity, specificity).score, POSITIVE)) for seed in range(1500)
    ]
    assert 0.93 <= np.mean([low <= truth <= high for low, high in intervals]) <= 0.97


def brier(sensitivity: float, specificity: float, prior: float) -> float:
    """Compute the expected Brier score of predictions from `draw`."""
    score = np.linspace(-12, 12, 20_001)
    probability = 1 / (1 + np.exp(-2 * score))
    ill, well = norm.pdf(score, norm.ppf(sensitivity), 1), norm.pdf(score, -norm.ppf(specificity), 1)
    step = score[1] - score[0]
    return float((prior * (1 - probability) ** 2 * ill + (1 - prior) * probability**2 * well).sum() * step)


@pytest.mark.parametrize(("sensitivity", "specificity"), [(0.7, 0.7), (0.95, 0.8)])
def test_brier_score_interval_has_nominal_coverage(sensitivity: float, specificity: float) -> None:
    tests = [draw(seed, sensitivity, specificity) for seed in range(1500)]
    # Contribution of each image to the mean; one matrix product then resamples all tests.
    contributions = [(each.positive_probability - each.positive) ** 2 / 624 for each in tests]
    truth = brier(sensitivity, specificity, prior=390 / 624)
    draws = bootstrap(lambda weights: weights, POSITIVE) @ np.stack(contributions, axis=1)
    values = np.sum(contributions, axis=1)
    low, high = np.transpose([mean_interval(value, each, 624) for value, each in zip(values, draws.T, strict=True)])
    assert (low[7], high[7]) == pytest.approx(metric_intervals(tests[7])["brier"])
    assert 0.93 <= np.mean((low <= truth) & (truth <= high)) <= 0.97


def test_result_names_contain_subtype_metrics() -> None:
    assert {key for name in SUBTYPE_METRICS for key in estimate_keys(name)} <= {*RESULT_NAMES}


def test_table_rows_are_named_metrics_then_ranked_metrics_with_subtypes_after_sensitivity(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ranked = ["accuracy", "auroc", "balanced_accuracy", *SENSITIVITIES, "specificity"]
    assert list(reported_metrics(subtype="{}")) == ranked
    monkeypatch.setitem(METRICS, "f1", METRICS["f1"]._replace(rank=0))
    found = reported_metrics("brier", "sensitivity", "auroc_bacterial_viral", subtype="to {}")
    first = ["brier", *SENSITIVITIES, "auroc_bacterial_viral"]
    assert list(found) == [*first, "accuracy", "auroc", "balanced_accuracy", "specificity", "f1"]
    assert (found["sensitivity_viral"], found["f1"]) == ("to viral", "F1")
