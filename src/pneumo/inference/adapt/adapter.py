"""The command `pneumo adapt`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from pneumo.common import __version__
from pneumo.common.files import check_output, check_overwrites, unwritable, write_output
from pneumo.common.terminal import print_line, warn
from pneumo.data.labelled_images import LabelledSet
from pneumo.errors import ConfigError, DataError
from pneumo.inference.adapt.adaptation_report import print_adaptation, to_json
from pneumo.inference.backend import as_flag
from pneumo.inference.evaluate.cohort import Cohort, predict_cohort
from pneumo.inference.export.formats import FORMATS
from pneumo.inference.predictor import Predictor, load_predictor
from pneumo.metrics.adaptation_effect import AUROC, AdaptationEffect, measure_effect
from pneumo.metrics.intervals import Array, Estimate
from pneumo.metrics.local_adaptation import (
    FOLDS,
    MIN_PATIENTS,
    RULES,
    TARGET_RULES,
    LocalPoint,
    ThresholdRule,
    apply_local_point,
    cross_fit,
    fit_local_point,
    ranks_inversely,
)
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.sample_size import Requirement, Widths, describe_population, images_needed
from pneumo.models.checkpoint_reader import read_checkpoint
from pneumo.models.checkpoint_writer import CheckpointWriteError, save_checkpoint
from pneumo.models.hyperparameters import PredictionOptions

_UNCERTAIN = 0.1  # default of decision.uncertain, for checkpoints without the configuration of their run
_DEFAULT_TARGET = 0.9


@dataclass(frozen=True)
class AdaptationOptions:
    """Options of an adaptation, named like those of the command."""

    rule: str = RULES[0]  # see `pneumo.metrics.local_adaptation.fit_local_point`
    target: float | None = None  # required sensitivity or specificity; None: 0.9 for the rules that need one
    width: float = 0.1  # wanted width of 95 % intervals, for the number of images needed

    def check(self) -> ThresholdRule:
        """Return the rule of the threshold; raise a ConfigError for an invalid option."""
        if self.rule not in RULES:
            raise ConfigError(f"--rule {self.rule} is unknown: it must be {', '.join(RULES)}. Use --rule {RULES[0]}.")
        if self.target is not None and self.rule not in TARGET_RULES:
            raise ConfigError(
                f"--target {self.target:g} has no effect with --rule {self.rule}: it is the value that the rules "
                f"{' and '.join(TARGET_RULES)} require. Omit it, or use --rule sensitivity."
            )
        if self.target is not None and not 0 < self.target <= 1:
            raise ConfigError(
                f"--target {self.target:g} is out of range: it must be above 0 and at most 1. Use a value such as 0.9."
            )
        if not 0 < self.width < 1:
            raise ConfigError(
                f"--width {self.width:g} is out of range: it is the width of an interval of a proportion, above 0 and "
                "below 1. Use a value such as 0.1."
            )
        target = _DEFAULT_TARGET if self.target is None else self.target
        return ThresholdRule(self.rule, target if self.rule in TARGET_RULES else None)


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
            "data": self.cohort.name,
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


def run_adapt(
    checkpoint: Path,
    labelled: LabelledSet,
    output: Path,
    json: Path | None,
    options: AdaptationOptions,
    batch_size: int | None,
    device: str,
    tables: tuple[Path, ...] = (),
) -> None:
    """Adapt a checkpoint to labelled images, print the effect, and write the new checkpoint.

    Args:
        checkpoint: Checkpoint of a binary classifier. Of an adapted one, only the weights and the original operating
            point are used: the earlier adaptation is replaced.
        labelled: Labelled images of the new site.
        output: New checkpoint.
        json: File for the results; None: none.
        options: Options of the adaptation.
        batch_size: Batch size; None: the fastest.
        device: cpu, cuda or auto.
        tables: Further files that the command reads.

    Raises:
        ConfigError: An option is invalid, a file cannot be written, or `checkpoint` is not one of two classes.
        DataError: The images are too few, of one class or cannot be read, or the network ranks them inversely.
    """
    rule = options.check()
    if checkpoint.suffix.lower() in FORMATS:
        raise ConfigError(
            f"{checkpoint} is an exported file, which cannot be adapted. Adapt the checkpoint that it was exported "
            "from, and export the result."
        )
    if output.suffix != ".ckpt":
        raise ConfigError(f"--output {output} must end in .ckpt. Use a name such as --output adapted.ckpt.")
    check_output("--output", output)
    check_output("--json", json)
    read = [checkpoint, *tables, *(image.file for image in labelled.images)]
    check_overwrites((("--output", output), ("--json", json)), read)
    model = load_predictor(checkpoint, device, batch_size, as_flag)
    content = read_checkpoint(checkpoint)
    adaptation = adapt(model, content, labelled, rule, options.width)
    record = adaptation.record()
    try:
        save_checkpoint(adapted_content(content, record), output)
    except CheckpointWriteError as error:
        raise unwritable("--output", output, OSError(str(error))) from error
    if json is not None:
        write_output("--json", json, to_json(record, adaptation.requirements, checkpoint, output))
    print_adaptation(record, adaptation.cohort, adaptation.requirements)
    print_line(f"Wrote {output}. Not a medical device: for research and teaching only.")


def adapt(
    model: Predictor, content: Mapping[str, Any], labelled: LabelledSet, rule: ThresholdRule, width: float
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
    area = effect.before[AUROC]
    if area is not None and area.low <= 0.5:
        warn(
            f"The network may rank the images of {cohort.name} no better than chance: the 95 % interval of its AUROC "
            f"is {area.low:.3f} to {area.high:.3f}. Then no threshold makes it useful there."
        )
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
    valid = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1
    return float(value) if valid else _UNCERTAIN


def _as_lists(estimates: Mapping[str, Estimate | None]) -> dict[str, list[float] | None]:
    return {name: None if each is None else list(each) for name, each in estimates.items()}
