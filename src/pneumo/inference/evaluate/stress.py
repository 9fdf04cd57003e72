"""Stress test: the performance of a classifier on corrupted images of a cohort."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from pneumo.common.hardware import count_cores
from pneumo.common.terminal import track
from pneumo.data.corruptions import CORRUPTIONS, SEVERITIES, SHORT_SIDE, corrupt, reduce_image
from pneumo.data.decoder_limits import MEMORY_BUDGET
from pneumo.data.grey import square
from pneumo.data.labelled_images import LabelledImage
from pneumo.data.radiograph import read_radiograph
from pneumo.errors import DataError
from pneumo.inference.backend import Images, Rules
from pneumo.inference.batch_predictor import BatchPredictor
from pneumo.inference.evaluate.cohort import Cohort
from pneumo.inference.evaluate.performance import defined_estimates
from pneumo.inference.inputs import InputImage, map_ahead
from pneumo.metrics.clusters import stratify
from pneumo.metrics.definitions import METRICS, estimates
from pneumo.metrics.estimation import compare_aurocs, mean_accuracy_interval, mean_auroc_interval
from pneumo.metrics.intervals import Estimate
from pneumo.metrics.predictions import Labels, Predictions

MAX_IMAGES = 200  # 16,200 forward passes
_METRICS = ("auroc", "accuracy", "sensitivity", "specificity")
_CONDITIONS = [(name, severity) for name in CORRUPTIONS for severity in range(1, SEVERITIES + 1)]
_VARIANTS = [("", 0), *_CONDITIONS]  # the first is the clean image


class StressCondition(NamedTuple):
    """Performance on images with one corruption in one severity, or on clean images."""

    corruption: str  # key of `pneumo.data.corruptions.CORRUPTIONS`; empty for clean images
    severity: int  # 1 to 5; 0 for clean images
    estimates: dict[str, Estimate]  # at the stored threshold, by metric; without those that need an absent class
    auroc_drop: Estimate | None  # AUROC of clean images minus this one, paired; None for clean images or one class
    out_of_distribution: float | None  # fraction of images with an OOD score above 1; None without a detector


@dataclass(frozen=True)
class StressTest:
    """Performance on clean and corrupted images. With several classes, all but the first are positive.

    Attributes:
        name: Name of the set.
        images: Number of images in the test.
        total: Number of images in the set, from which those in the test were sampled by patient.
        seed: Seed of the sample and the corruptions.
        clean: Performance without corruption, on the reduced images.
        conditions: Performance with each corruption in each severity.
        means: Mean of each metric over all conditions.
        severity_means: Mean of each metric over all corruptions for severities 1 to 5.
        corruption_means: Mean of each metric over all severities by corruption.
    """

    name: str
    images: int
    total: int
    seed: int
    clean: StressCondition
    conditions: tuple[StressCondition, ...]
    means: dict[str, Estimate]
    severity_means: tuple[dict[str, Estimate], ...]
    corruption_means: dict[str, dict[str, Estimate]]

    @property
    def main_metric(self) -> str:
        """The metric that ranks conditions: AUROC, or accuracy if the images are all of one class."""
        return "auroc" if "auroc" in self.clean.estimates else "accuracy"

    @property
    def worst(self) -> StressCondition:
        """The condition with the lowest main metric; as the lowest of many, its value is biased downwards."""
        return min(self.conditions, key=lambda each: each.estimates[self.main_metric].value)

    def condition(self, corruption: str, severity: int) -> StressCondition:
        """Return the performance with a corruption in a severity."""
        return next(each for each in self.conditions if (each.corruption, each.severity) == (corruption, severity))


class _Scores(NamedTuple):
    """Scores of V variants of N images, each (N, V)."""

    probability: npt.NDArray[np.float64]  # of the positive classes
    margin: npt.NDArray[np.float64]  # log odds of the positive classes
    predicted: npt.NDArray[np.bool_]  # whether a positive class is predicted
    outlying: npt.NDArray[np.bool_]  # whether the OOD score is above 1


def run_stress(model: BatchPredictor, cohort: Cohort, seed: int = 0, max_images: int = MAX_IMAGES) -> StressTest:
    """Measure performance under each corruption of `pneumo.data.corruptions` in each severity.

    Each image is decoded once and reduced to a short side of at most 512 pixels, or the network's input size if that is
    larger. Its 80 corrupted versions are then converted to the network's input. Only scores are kept.

    Args:
        model: The predictor.
        cohort: The set, as predicted by `predict_cohort`, which provides classes, patients and readable images.
        seed: Seed of the random numbers.
        max_images: About how many images are used at most; patients are sampled with all their images, in the same
            proportions of classes.

    Raises:
        DataError: An image can no longer be read.
    """
    index = sample_patients(cohort.predictions, max_images, seed)
    scores = _predict_variants(model, [cohort.images[i] for i in index], index, seed)
    base = cohort.predictions.take(index)
    variants = [_binary(base, scores, variant) for variant in range(len(_VARIANTS))]
    clean, corrupted = variants[0], dict(zip(_CONDITIONS, variants[1:], strict=True))
    measured = [
        _measure(*condition, clean, variant, scores.outlying[:, v].mean() if model.rules.has_ood_detector else None)
        for v, (condition, variant) in enumerate(zip(_VARIANTS, variants, strict=True))
    ]
    return StressTest(
        name=cohort.name,
        images=len(index),
        total=len(cohort.images),
        seed=seed,
        clean=measured[0],
        conditions=tuple(measured[1:]),
        means=_average(list(corrupted.values())),
        severity_means=tuple(
            _average([corrupted[name, severity] for name in CORRUPTIONS]) for severity in range(1, SEVERITIES + 1)
        ),
        corruption_means={
            name: _average([corrupted[name, severity] for severity in range(1, SEVERITIES + 1)]) for name in CORRUPTIONS
        },
    )


def sample_patients(predictions: Predictions, max_images: int, seed: int) -> Labels:
    """Sample patients with all their images until there are about `max_images`; return sorted indices of images.

    Patients are drawn separately by the classes of their images, at least one of each, so that classes keep their
    proportions.
    """
    clusters, total = predictions.clusters, len(predictions.label)
    if total <= max_images:
        return np.arange(total)
    generator = np.random.default_rng(seed)
    strata = stratify(predictions.label, clusters)
    chosen = [generator.permutation(stratum)[: max(1, int(len(stratum) * max_images / total))] for stratum in strata]
    return np.flatnonzero(np.isin(clusters, np.concatenate(chosen)))


def _predict_variants(model: BatchPredictor, images: Sequence[LabelledImage], numbers: Labels, seed: int) -> _Scores:
    table = np.empty((len(images) * len(_VARIANTS), len(_Scores._fields)))
    done, negative = 0, model.rules.classes[0]
    with track("Stress test", len(table)) as update, closing(_stream(model.rules, images, numbers, seed)) as inputs:
        while batch := list(islice(inputs, model.batch_size)):
            for row, each in enumerate(model.predict_images(batch), done):
                table[row] = (
                    each.positive_probability,
                    each.logit_margin,
                    each.predicted_class != negative,
                    bool(each.out_of_distribution),
                )
            done += len(batch)
            update(done)
    probability, margin, predicted, outlying = table.reshape(len(images), len(_VARIANTS), -1).transpose(2, 0, 1)
    return _Scores(probability, margin, predicted > 0, outlying > 0)


def _stream(rules: Rules, images: Sequence[LabelledImage], numbers: Labels, seed: int) -> Generator[InputImage]:
    """Yield the clean and the corrupted inputs of each image; threads prepare the following images."""
    cores = count_cores()

    def corrupt_next(position: int) -> Images:
        return _corrupt_image(images[position], rules, int(numbers[position]), seed)

    with closing(map_ahead(corrupt_next, range(len(images)), cores, cores)) as stacks:
        for image, stack in zip(images, stacks, strict=True):
            yield from (InputImage(image.file, pixels) for pixels in stack)


def _corrupt_image(image: LabelledImage, rules: Rules, number: int, seed: int) -> Images:
    """Read an image; return the network's inputs for all variants, (V, 1, S, S)."""
    with MEMORY_BUDGET.reservation():
        try:
            whole, _ = read_radiograph(image.file)
        except DataError as error:
            raise DataError(
                f"{image.name} {error} It was readable before: keep files unchanged during a test."
            ) from None
        pixels = reduce_image(whole, max(SHORT_SIDE, rules.image_size))
    variants = (corrupt(pixels, name, severity, seed, number) for name, severity in _VARIANTS)
    return np.stack([square(Image.fromarray(each), rules.input_format)[None] for each in variants])


def _binary(base: Predictions, scores: _Scores, variant: int) -> Predictions:
    return Predictions.binary(
        scores.probability[:, variant],
        base.positive,
        scores.predicted[:, variant],
        paths=base.paths,
        margin=scores.margin[:, variant],
        patients=base.patients,
    )


def _measure(
    corruption: str, severity: int, clean: Predictions, variant: Predictions, outlying: float | None
) -> StressCondition:
    compared = severity > 0 and clean.has_both_classes
    drop = Estimate(*compare_aurocs([[clean], [variant]])[0, 1][:3]) if compared else None
    return StressCondition(
        corruption, severity, defined_estimates(variant, _METRICS), drop, None if outlying is None else float(outlying)
    )


def _average(variants: Sequence[Predictions]) -> dict[str, Estimate]:
    """Average AUROC and accuracy over conditions; the intervals treat the images as the sample, not the conditions."""
    accuracy = float(np.mean([variant.correct.mean() for variant in variants]))
    means = {"accuracy": Estimate(accuracy, *mean_accuracy_interval(variants, accuracy))}
    if variants[0].has_both_classes:
        aurocs = [estimates(variant, {"auroc": METRICS["auroc"]})["auroc"].value for variant in variants]
        auroc = float(np.mean(aurocs))
        means["auroc"] = Estimate(auroc, *mean_auroc_interval(variants, auroc))
    return means
