"""Number of labelled images that an external validation requires for wanted widths of 95 % intervals."""

from __future__ import annotations

from math import asinh, ceil, sqrt
from typing import NamedTuple

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from pneumo.errors import ConfigError, DataError
from pneumo.metrics.bootstrap import Resamples
from pneumo.metrics.clusters import Clusters
from pneumo.metrics.definitions import auroc
from pneumo.metrics.intervals import ROUNDING_ERROR, Array
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.recalibration import fit_logistic, margins

_Z = float(norm.ppf(0.975))


class Population(NamedTuple):
    """Expected properties of the images of a future validation and of the classifier's predictions for them."""

    prevalence: float
    auroc: float
    sensitivity: float
    specificity: float
    threshold: float  # probability above which an image is predicted positive
    margin: Array  # log odds of a representative set of images, (N,)
    intercept: float = 0.0  # of a logistic regression of the class on the margin; 0 if calibrated
    slope: float = 1.0  # of this regression; 1 if calibrated
    design_effect: float = 1.0  # factor of the number of images because of patients with several images


class Widths(NamedTuple):
    """Wanted widths of 95 % intervals; None leaves a criterion out. Defaults are those of Riley et al."""

    observed_expected: float | None = 0.2
    slope: float | None = 0.2
    auroc: float | None = 0.1
    sensitivity: float | None = 0.1
    specificity: float | None = 0.1
    net_benefit: float | None = 0.2  # net benefit / prevalence


class Requirement(NamedTuple):
    """Number of images that one criterion requires."""

    criterion: str  # field of `Widths`
    width: float
    images: int
    positives: int  # expected number of positive ones among them


def images_needed(population: Population, widths: Widths | None = None) -> list[Requirement]:
    """Compute the number of images that each criterion requires; the largest one fulfils all of them.

    Sources: R. D. Riley et al., Evaluation of clinical prediction models (part 3): calculating the sample size required
    for an external validation study, BMJ 2024;384:e074821; R. D. Riley et al., Minimum sample size for external
    validation of a clinical prediction model with a binary outcome, 2021, section 3.

    Args:
        population: Expected properties of images and predictions.
        widths: Wanted widths; None: the defaults.

    Raises:
        ConfigError: A width is not above 0.
        DataError: All margins are equal, so that no slope can be estimated.
    """
    functions = {
        "observed_expected": _observed_expected,
        "slope": _slope,
        "auroc": _auroc,
        "sensitivity": lambda each, width: _proportion(each.sensitivity, each.prevalence, width),
        "specificity": lambda each, width: _proportion(each.specificity, 1 - each.prevalence, width),
        "net_benefit": _net_benefit,
    }
    requirements = []
    for criterion, width in (widths or Widths())._asdict().items():
        if width is None:
            continue
        if not width > 0:
            raise ConfigError(f"The width {width:g} of the interval of {criterion} must be above 0.")
        images = ceil(functions[criterion](population, width) * population.design_effect - ROUNDING_ERROR)
        requirements.append(Requirement(criterion, width, images, round(images * population.prevalence)))
    return requirements


def describe_population(predictions: Predictions, threshold: float) -> Population:
    """Estimate the properties of a population from predictions for a sample of it.

    A sensitivity or specificity of 0 or 1 would require no images. So 1/2 image is added to correct and to wrong
    predictions of each class, and the AUROC is limited accordingly. Each patient's images count as one for the
    design effect, which is on the safe side.

    Raises:
        DataError: A class is absent.
    """
    binary = predictions.as_binary()
    if not binary.has_both_classes:
        raise DataError("A sample size requires images of both classes, but one is absent.")
    positive, margin = binary.positive, margins(binary)
    fit = fit_logistic(margin, positive, binary.clusters, slope=True)
    intercept, slope = (0.0, 1.0) if fit is None else fit.coefficients.tolist()
    area, smaller = float(auroc(Resamples(binary))[0]), int(min(positive.sum(), (~positive).sum()))
    return Population(
        prevalence=float(positive.mean()),
        auroc=min(area, 1 - 0.5 / (smaller + 1)),
        sensitivity=float((binary.correct[positive].sum() + 0.5) / (positive.sum() + 1)),
        specificity=float((binary.correct[~positive].sum() + 0.5) / ((~positive).sum() + 1)),
        threshold=threshold,
        margin=margin,
        intercept=intercept,
        slope=slope,
        design_effect=design_effect(binary.clusters),
    )


def design_effect(clusters: Clusters, correlation: float = 1.0) -> float:
    """Compute the factor by which patients with several images increase the number of images required.

    Source: L. Kish, Survey Sampling, 1965; the mean number of images per patient is weighted by images.

    Args:
        clusters: Index of each image's patient, (N,).
        correlation: Intraclass correlation; 1 is the worst case, where further images of a patient add nothing.
    """
    images = np.bincount(clusters)
    return float(1 + ((images**2).sum() / images.sum() - 1) * correlation)


def _observed_expected(population: Population, width: float) -> float:
    """Criterion 1; the interval of the ratio, with an expected value of 1, is symmetric on the log scale."""
    error = asinh(width / 2) / _Z
    return (1 - population.prevalence) / (population.prevalence * error**2)


def _slope(population: Population, width: float) -> float:
    """Criterion 2; from the information matrix of intercept and slope."""
    probability = expit(population.intercept + population.slope * population.margin)
    weight = probability * (1 - probability)
    first, mixed, second = (float((weight * population.margin**power).mean()) for power in range(3))
    determinant = first * second - mixed**2
    if determinant <= ROUNDING_ERROR * first * second:
        raise DataError("A sample size for the calibration slope requires images with different probabilities.")
    return first / (determinant * _error(width) ** 2)


def _auroc(population: Population, width: float) -> float:
    """Criterion 3; positive root of the variance of an AUROC (Newcombe, 2006) for the number of images."""
    area, spread = population.auroc, population.prevalence * (1 - population.prevalence) * _error(width) ** 2
    factor = (1 - area) / (2 - area) + area / (1 + area)
    linear, constant = area * (1 - area) * factor / 2, area * (1 - area) * (1 - factor)
    return (linear + sqrt(linear**2 + 4 * spread * constant)) / (2 * spread)


def _proportion(value: float, fraction: float, width: float) -> float:
    """Criterion for a sensitivity or specificity, of a class with this fraction of the images."""
    return value * (1 - value) / (fraction * _error(width) ** 2)


def _net_benefit(population: Population, width: float) -> float:
    """Criterion 4; of the net benefit divided by the prevalence."""
    prevalence, sensitivity, specificity = population.prevalence, population.sensitivity, population.specificity
    weight = (1 - prevalence) / prevalence * population.threshold / (1 - population.threshold)
    variance = sensitivity * (1 - sensitivity) / prevalence
    variance += weight**2 * specificity * (1 - specificity) / (1 - prevalence)
    variance += weight**2 * (1 - specificity) ** 2 / (prevalence * (1 - prevalence))
    return variance / _error(width) ** 2


def _error(width: float) -> float:
    """Compute the standard error that corresponds to the width of a 95 % interval."""
    return width / (2 * _Z)
