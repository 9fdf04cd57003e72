"""Evaluation of a classifier on labelled images of any source."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pneumo.data.labelled_images import LabelledSet
from pneumo.data.selection import merge_sets
from pneumo.errors import ConfigError, DataError
from pneumo.inference.batch_predictor import BatchPredictor
from pneumo.inference.evaluate.cohort import Cohort, predict_cohort
from pneumo.inference.evaluate.confounding import probe_columns
from pneumo.inference.evaluate.evaluation_results import EvaluationResults
from pneumo.inference.evaluate.factors import choose_factors, factor_values
from pneumo.inference.evaluate.leakage import TrainingImages, find_leakage, folder_images, run_images
from pneumo.inference.evaluate.paired_comparison import check_comparable, compare_cohorts
from pneumo.inference.evaluate.performance import Performance, measure_fractions, measure_performance
from pneumo.inference.evaluate.reference import compare_with_reference, find_reference
from pneumo.inference.evaluate.stress import run_stress
from pneumo.inference.prediction import show_path
from pneumo.metrics.diagnostics import check_fraction
from pneumo.metrics.subgroups import measure_subgroups
from pneumo.models.adaptation_record import describe_adaptation


@dataclass(frozen=True)
class EvaluationOptions:
    """Optional parts of an evaluation."""

    by: Sequence[str] = ()  # columns whose values define subgroups
    prevalences: Sequence[float] = ()  # for predictive values
    against: BatchPredictor | None = None  # another network, for a paired comparison
    run: Path | None = None  # run of the network: internal reference and training images
    training_data: Path | None = None  # folder of the training images; None: those of the run
    stress: bool = False
    mined_labels: bool = False  # whether labels were extracted from reports


class Evaluation(EvaluationResults):
    """The evaluation of a classifier on one or more labelled sets; see `EvaluationResults` for its attributes."""

    def to_dict(self) -> dict[str, Any]:
        """Return all results as JSON values, as written by `pneumo evaluate --json`."""
        from pneumo.inference.evaluate.evaluation_records import to_json

        content: dict[str, Any] = json.loads(to_json(self))
        return content

    def to_html(self) -> str:
        """Render all results as a self-contained HTML page."""
        from pneumo.inference.evaluate.evaluation_page import to_html  # imports Matplotlib

        return to_html(self)


def evaluate(
    model: BatchPredictor, sets: Sequence[LabelledSet], options: EvaluationOptions, split: str = "test"
) -> Evaluation:
    """Evaluate a network on labelled sets; each is a site.

    Raises:
        ConfigError: An option does not fit the data or the network.
        DataError: A label is not a class of the network, or images cannot be read.
    """
    labelled = merge_sets(sets)
    for prevalence in options.prevalences:
        check_fraction("prevalence", prevalence)
    factors = choose_factors(labelled, options.by)
    other, other_name = options.against, ""
    if other is not None:
        other_name = "the other network" if other.path is None else show_path(other.path)
        check_comparable(labelled, model.rules.classes, other.rules.classes, other_name)
    adaptation = model.network.adaptation()
    reference = find_reference(model, options.run)
    training = _find_training_images(options)
    cohort = predict_cohort(model, labelled, keep_thumbnails=not isinstance(training, str))
    comparison = None
    if other is not None:
        second = predict_cohort(other, labelled, f"Predicting with {other_name}")
        comparison = compare_cohorts(cohort, second, other_name)
    stress = run_stress(model, cohort) if options.stress else None
    predictions = cohort.predictions
    return Evaluation(
        rules=model.rules,
        checkpoint="" if model.path is None else show_path(model.path),
        cohort=cohort,
        overall=measure_performance("all" if len(sets) > 1 else cohort.name, predictions, options.prevalences),
        sites=_measure_sites(cohort, options.prevalences),
        fractions=measure_fractions(cohort),
        reference=reference,
        gap=compare_with_reference(reference, predictions, model.rules.threshold),
        subgroups=measure_subgroups(predictions, {name: factor_values(cohort, name) for name in factors}),
        probes=probe_columns(cohort, factors),
        leakage=training if isinstance(training, str) else find_leakage(cohort, training),
        comparison=comparison,
        stress=stress,
        split=split,
        adaptation="" if adaptation is None else describe_adaptation(adaptation),
        mined_labels=options.mined_labels,
    )


def _find_training_images(options: EvaluationOptions) -> TrainingImages | str:
    if options.training_data is not None:
        return folder_images(options.training_data)
    if options.run is None:
        return "use --run RUN or --training-data FOLDER"
    try:
        return run_images(options.run)
    except (ConfigError, DataError):  # the run's images may be on another machine
        return f"the training images of {options.run.resolve().name} cannot be read; use --training-data FOLDER"


def _measure_sites(cohort: Cohort, prevalences: Sequence[float]) -> dict[str, Performance]:
    sites = np.array([image.site for image in cohort.images])
    names = list(dict.fromkeys(sites.tolist()))
    if len(names) < 2:
        return {}
    parts = {name or "unknown": cohort.predictions.take(np.flatnonzero(sites == name)) for name in names}
    return {name: measure_performance(name, part, prevalences) for name, part in parts.items()}
