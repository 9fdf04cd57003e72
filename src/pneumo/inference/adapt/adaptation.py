"""Adaptation of a network to a set of labelled images, with its effect on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np

from pneumo.common import __version__
from pneumo.common.terminal import warn
from pneumo.data.labelled_images import LabelledSet
from pneumo.errors import ConfigError, DataError
from pneumo.inference.batch_predictor import BatchPredictor
from pneumo.inference.evaluate.cohort import Cohort, predict_cohort
from pneumo.metrics.adaptation_effect import AdaptationEffect, measure_effect
from pneumo.metrics.intervals import Array, Estimate
from pneumo.metrics.local_adaptation import (
    FOLDS,
    MIN_PATIENTS,
    LocalPoint,
    ThresholdRule,
    apply_local_point,
    cross_fit,
    fit_local_point,
    ranks_inversely,
)
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.sample_size import Requirement, Widths, describe_population, images_needed
from pneumo.models.adaptation_record import shorten_name
from pneumo.models.hyperparameters import PredictionOptions

_UNCERTAIN = 0.1  # default of decision.uncertain, for checkpoints without the configuration of their run


@dataclass(frozen=True)
class Adaptation:
    """A local adaptation and its effect, estimated by cross-fitting."""

    cohort: Cohort
    rule: ThresholdRule
    before: LocalPoint
    after: LocalPoint
    effect: AdaptationEffect
    requirements: list[Requirement]  # images for a precise validation

    def record(self) -> dict[str, Any]:
        """Return the record that the checkpoint stores; see `pneumo.models.adaptation_record`."""
        predictions = self.cohort.predictions
        return {
            "data": shorten_name(self.cohort.name),
            "date": datetime.now(timezone.utc).date().isoformat(),
            "pneumo_version": __version__,
            "images": len(predictions.label),
            "patients": len(np.unique(predictions.clusters)),
            "positives": int(predictions.positive.sum()),
            "rule": self.rule.name,
            "target": self.rule.target,
            "folds": FOLDS,
            "before": self.before._asdict(),
            "after": self.after._asdict(),
            "metrics": {part: _as_lists(estimates) for part, estimates in self.effect._asdict().items()},
        }


def adapt(
    model: BatchPredictor, content: Mapping[str, Any], labelled: LabelledSet, rule: ThresholdRule, width: float
) -> Adaptation:
    """Fit a local operating point and estimate its effect by cross-fitting over patients.

    Args:
        model: Predictor of the checkpoint.
        content: Content of the checkpoint.
        labelled: Labelled images.
        rule: Rule of the threshold.
        width: Wanted width of 95 % intervals of AUROC, sensitivity and specificity.

    Raises:
        ConfigError: The network has more than two classes.
        DataError: See `run_adapt`.
    """
    if model.rules.positive_class is None:
        raise ConfigError(
            f"The checkpoint has the classes {', '.join(model.rules.classes)}: only a classifier of two classes has a "
            "threshold to adapt. Use a checkpoint of a run without data.task=subtype."
        )
    earlier = content.get("adaptation")
    if earlier is not None:
        warn(
            f"The checkpoint is already adapted ({earlier['data']}, {earlier['date']}). Its original operating point "
            "is the reference, and the earlier adaptation is replaced."
        )
    cohort = predict_cohort(model, labelled)
    current = _operating_point(content["hyper_parameters"])
    margin = cohort.predictions.margin
    assert margin is not None
    difference = (margin - current.intercept) * current.temperature
    require_adaptable(cohort.name, cohort.predictions, difference)
    before, reference = cohort.predictions, current
    if earlier is not None:
        reference = LocalPoint(**earlier["before"])
        before = apply_local_point(before, difference, reference)
    uncertain = _uncertain_fraction(content.get("config", {}))
    point = fit_local_point(difference, before.positive, reference, rule, uncertain)
    after = cross_fit(before, difference, reference, rule, uncertain)
    effect = measure_effect(before, after)
    widths = Widths(auroc=width, sensitivity=width, specificity=width)
    requirements = images_needed(describe_population(after, point.threshold), widths)
    return Adaptation(cohort, rule, reference, point, effect, requirements)


def require_adaptable(name: str, predictions: Predictions, difference: Array) -> None:
    """Raise a DataError unless the images can determine an operating point."""
    for index, positive in enumerate((False, True)):
        chosen = predictions.positive == positive
        patients = len(np.unique(predictions.clusters[chosen]))
        if patients < MIN_PATIENTS:
            raise DataError(
                f"{name} has {int(chosen.sum()):,} readable {predictions.classes[index]} images of {patients:,} "
                f"patients, but an adaptation requires {MIN_PATIENTS} patients of each class. Label more images."
            )
    if ranks_inversely(difference, predictions.positive):
        raise DataError(
            f"The network's output for {name} is on average no higher for {predictions.classes[1]} than for "
            f"{predictions.classes[0]} images, so no temperature and threshold can make it useful there. Check that "
            "the labels are not exchanged; otherwise train on images of this site."
        )


def adapted_content(content: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of the adapted checkpoint: the same weights with the record and its operating point."""
    parameters = {name: value for name, value in content["hyper_parameters"].items() if name != "intercept"}
    return {**content, "hyper_parameters": {**parameters, **record["after"]}, "adaptation": dict(record)}


def _operating_point(parameters: Mapping[str, Any]) -> LocalPoint:
    defaults = PredictionOptions()
    return LocalPoint(*(parameters.get(name, getattr(defaults, name)) for name in LocalPoint._fields))


def _uncertain_fraction(config: Mapping[str, Any]) -> float:
    """Return the fraction of uncertain images that the run set."""
    value = config.get("decision.uncertain")
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1:
        return float(value)
    return _UNCERTAIN


def _as_lists(estimates: Mapping[str, Estimate | None]) -> dict[str, list[float] | None]:
    return {name: None if each is None else list(each) for name, each in estimates.items()}
