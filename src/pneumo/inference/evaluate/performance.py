"""Performance of a classifier on one set of labelled images: metrics, diagnostics and calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pneumo.inference.evaluate.cohort import Cohort
from pneumo.metrics.clusters import clustered_wilson
from pneumo.metrics.decision_curve import DecisionCurve, decision_curve
from pneumo.metrics.definitions import METRICS, estimates
from pneumo.metrics.diagnostics import (
    CurvePoint,
    LikelihoodRatios,
    PredictiveValues,
    curve_points,
    likelihood_ratios,
    predictive_values,
)
from pneumo.metrics.estimation import Sample
from pneumo.metrics.intervals import Estimate
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.recalibration import Calibration, measure_calibration

_BINARY = ("auroc", "accuracy", "balanced_accuracy", "sensitivity", "specificity")
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Performance:
    """Performance on one set of images; results that require an absent class are missing."""

    name: str
    predictions: Predictions
    metrics: Mapping[str, Estimate]  # by name, as in `pneumo.metrics.definitions.METRICS`
    # With more than two classes, metrics of all positive classes together against the negative one; else empty.
    binary_metrics: Mapping[str, Estimate]
    class_aurocs: Mapping[str, Estimate]  # one-vs-rest AUROC by class, with more than two classes; else empty
    ratios: LikelihoodRatios | None
    predictive_values: Sequence[PredictiveValues]  # first at the set's own prevalence, then at the stated ones
    points: Sequence[CurvePoint]
    calibration: Calibration
    curve: DecisionCurve

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.predictions.label)

    @cached_property
    def patients(self) -> int:
        """Number of patients; an image without a known patient counts as one."""
        return len(np.unique(self.predictions.clusters))

    @property
    def positives(self) -> int:
        """Number of images of a positive class."""
        return int(self.predictions.positive.sum())

    @property
    def main_metrics(self) -> Mapping[str, Estimate]:
        """Metrics by name; with more than two classes, those of positive against negative images where they exist."""
        return {**self.metrics, **self.binary_metrics}

    @property
    def undefined(self) -> list[str]:
        """Titles of the metrics that require an absent class."""
        return [metric.title for name, metric in METRICS.items() if name not in self.metrics]


class Fractions(NamedTuple):
    """Fractions of doubtful predictions, and the accuracy of those near to and far from the threshold."""

    uncertain: Estimate | None  # fraction of uncertain predictions; None: the network is not calibrated
    accuracy_uncertain: Estimate | None  # None if there are no such predictions
    accuracy_certain: Estimate | None
    out_of_distribution: Estimate | None  # fraction of images; None: the network has no OOD detector


def measure_performance(name: str, predictions: Predictions, prevalences: Sequence[float] = ()) -> Performance:
    """Compute all metrics of a set with patient-clustered 95 % intervals.

    Args:
        name: Name of the set.
        predictions: Predictions for its images.
        prevalences: Prevalences of the positive classes at which predictive values are computed.

    Raises:
        ConfigError: A prevalence is not above 0 and below 1.
    """
    binary = predictions.as_binary()
    several = {} if predictions.is_binary else predictions.one_vs_rest
    return Performance(
        name=name,
        predictions=predictions,
        metrics=defined_estimates(predictions, METRICS),
        binary_metrics={} if predictions.is_binary else defined_estimates(binary, _BINARY),
        class_aurocs={
            each: estimates(part, {"auroc": METRICS["auroc"]})["auroc"]
            for each, part in several.items()
            if part.has_both_classes
        },
        ratios=likelihood_ratios(predictions),
        predictive_values=predictive_values(predictions, prevalences),
        points=curve_points(predictions),
        calibration=measure_calibration(predictions),
        curve=decision_curve(predictions),
    )


def defined_estimates(predictions: Predictions, names: Sequence[str] | Mapping[str, object]) -> dict[str, Estimate]:
    """Compute the named metrics except those that require an absent class."""
    sample = Sample(predictions, [])
    return estimates(predictions, {name: METRICS[name] for name in names if sample.units(METRICS[name])})


def measure_fractions(cohort: Cohort) -> Fractions:
    """Compute the fractions of uncertain and out-of-distribution images, with clustered Wilson intervals."""
    clusters, correct = cohort.predictions.clusters, cohort.predictions.correct

    def proportion(values: Mask, chosen: Mask) -> Estimate | None:
        if not chosen.any():
            return None
        return Estimate(float(values[chosen].mean()), *clustered_wilson(values[chosen], clusters[chosen]))

    every, uncertain, ood = np.ones(len(correct), np.bool_), cohort.uncertain, cohort.ood_score
    return Fractions(
        None if uncertain is None else proportion(uncertain, every),
        None if uncertain is None else proportion(correct, uncertain),
        None if uncertain is None else proportion(correct, ~uncertain),
        None if ood is None else proportion(ood > 1, every),
    )
