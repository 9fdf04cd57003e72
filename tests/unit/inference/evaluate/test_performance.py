from dataclasses import replace

import numpy as np
import pytest

from pneumo.inference.evaluate.evaluation import Evaluation
from pneumo.inference.evaluate.performance import defined_estimates, measure_fractions, measure_performance
from pneumo.metrics.definitions import METRICS, estimates
from pneumo.metrics.predictions import Predictions


def test_metrics_are_those_of_a_test_of_a_run(evaluation: Evaluation) -> None:
    assert evaluation.metrics == estimates(evaluation.overall.predictions)
    assert evaluation.overall.undefined == []


def test_metrics_that_require_an_absent_class_are_left_out(evaluation: Evaluation) -> None:
    predictions = evaluation.overall.predictions
    positive = predictions.take(np.flatnonzero(predictions.positive))
    assert defined_estimates(positive, METRICS).keys() == {"accuracy", "sensitivity", "ece", "brier"}
    performance = measure_performance("ward", positive)
    assert performance.undefined == ["AUROC", "balanced accuracy", "specificity", "average precision", "F1", "MCC"]
    assert performance.ratios is None
    assert len(performance.predictive_values) == 1


def test_one_patient_with_both_classes_has_finite_intervals() -> None:
    label = np.array([True, False, True, False])
    margin = np.array([1.0, -1.0, -0.5, 0.5])
    predictions = Predictions.binary(
        1 / (1 + np.exp(-margin)), label, margin > 0, ("A", "B"), (), margin, patients=("x",) * 4
    )
    performance = measure_performance("ward", predictions)
    assert performance.patients == 1
    assert all(np.isfinite(estimate).all() for estimate in performance.metrics.values())


def test_networks_without_margin_or_detector_have_no_fractions(evaluation: Evaluation) -> None:
    plain = replace(evaluation.cohort, uncertain=None, ood_score=None)
    assert measure_fractions(plain) == (None, None, None, None)
    everything = replace(evaluation.cohort, uncertain=np.ones(120, np.bool_), ood_score=np.full(120, 2.0))
    fractions = measure_fractions(everything)
    assert fractions.uncertain is not None
    assert fractions.out_of_distribution is not None
    assert (fractions.uncertain.value, fractions.out_of_distribution.value) == (1, 1)
    assert fractions.accuracy_certain is None
    assert fractions.accuracy_uncertain is not None
    assert fractions.accuracy_uncertain.value == pytest.approx(evaluation.metrics["accuracy"].value)
