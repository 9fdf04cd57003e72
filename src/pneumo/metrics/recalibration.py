"""Calibration intercept and slope by logistic regression, observed/expected ratio, log loss, with 95 % intervals."""

from __future__ import annotations

from math import exp, sqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from scipy.stats import norm

from pneumo.metrics.clusters import Clusters, residuals, student_factor
from pneumo.metrics.intervals import ROUNDING_ERROR, Array, Estimate, bounded_interval, wilson
from pneumo.metrics.predictions import MIN_PROBABILITY, Predictions

_STEPS, _HALVINGS = 100, 30


class LogisticFit(NamedTuple):
    """A logistic regression of the class on the margin."""

    coefficients: Array  # intercept and, if fitted, slope, (K,)
    covariance: Array  # cluster-robust covariance of the coefficients, (K, K)


class Calibration(NamedTuple):
    """Agreement of predicted probabilities with observed classes. None: the images determine no finite value."""

    intercept: Estimate | None  # calibration-in-the-large: log odds to add, with slope 1; ideally 0
    slope: Estimate | None  # factor of the log odds, fitted together with an intercept; ideally 1
    observed_expected: Estimate | None  # number of positive images / sum of probabilities; ideally 1
    log_loss: Estimate  # mean negative log likelihood, in nats


def margins(predictions: Predictions) -> Array:
    """Return log odds of the positive classes, (N,), always finite.

    If they were not recorded, they are computed from probabilities, which are clipped to 1e-7 from 0 and 1.
    """
    if predictions.margin is not None:
        return predictions.margin
    probability = np.clip(predictions.positive_probability, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    return np.asarray(logit(probability))


def measure_calibration(predictions: Predictions) -> Calibration:
    """Compute calibration measures; all positive classes together count as positive.

    Intervals use cluster-robust standard errors; with few patients they are widened by Student's t. The interval of
    the observed/expected ratio is on the log scale. The one of the log loss is `bounded_interval`, with the largest
    loss that any label could cause as upper limit of an image. Intercept and slope are None if a class is absent. The
    slope is also None if the classes are separable or all margins are equal. Simulated coverage for 60 to 200 patients,
    with and without clusters: 92 to 98 %.

    Sources: B. Van Calster et al., A calibration hierarchy for risk models was defined: from utopia to empirical data,
    2016; R. D. Riley et al., Evaluation of clinical prediction models (part 2): how to undertake an external
    validation study, 2024, for the ratio.
    """
    margin, positive, clusters = margins(predictions), predictions.positive, predictions.clusters
    large = fit_logistic(margin, positive, clusters, slope=False)
    both = fit_logistic(margin, positive, clusters, slope=True)
    return Calibration(
        None if large is None else _coefficient(large, 0, clusters),
        None if both is None else _coefficient(both, 1, clusters),
        _observed_expected(expit(margin), positive, clusters),
        _log_loss(margin, positive, clusters),
    )


def fit_logistic(
    margin: Array, positive: npt.NDArray[np.bool_], clusters: Clusters | None = None, *, slope: bool
) -> LogisticFit | None:
    """Fit the class to the margin by maximum likelihood, with a cluster-robust covariance.

    The covariance is the sandwich estimator times G / (G - 1) * (N - 1) / (N - K), for G clusters, N images and K
    coefficients. It equals that of statsmodels with `cov_type="cluster"`.

    Source: K.-Y. Liang, S. L. Zeger, Longitudinal data analysis using generalized linear models, 1986, for the
    sandwich estimator.

    Args:
        margin: Log odds of the positive class, (N,).
        positive: True for positive images, (N,).
        clusters: Index of each image's patient, (N,); None: each image is one cluster.
        slope: Fit intercept and slope; otherwise only the intercept, with the slope fixed at 1.

    Returns:
        None if no finite estimate exists: a class is absent, fewer than K + 1 images or two clusters, separable
        classes, or, with a slope, equal margins.
    """
    clusters = np.arange(len(margin)) if clusters is None else clusters
    design = np.stack([np.ones(len(margin)), margin], axis=1) if slope else np.ones((len(margin), 1))
    offset = np.zeros(len(margin)) if slope else margin
    images, count = design.shape
    groups = len(np.unique(clusters))
    if (
        positive.all()
        or not positive.any()
        or images <= count
        or groups < 2
        or (slope and _separable(margin, positive))
    ):
        return None
    scale = np.array([1.0, margin.std()])[:count]  # of the columns, so that Newton's method is well conditioned
    coefficients = _maximise(design / scale, offset, positive) / scale
    probability = expit(design @ coefficients + offset)
    bread = np.linalg.inv((design * (probability * (1 - probability))[:, None]).T @ design)
    scores = np.zeros((int(clusters.max()) + 1, count))
    np.add.at(scores, clusters, design * (positive - probability)[:, None])
    factor = groups / (groups - 1) * (images - 1) / (images - count)
    return LogisticFit(coefficients, factor * bread @ (scores.T @ scores) @ bread)


def _separable(margin: Array, positive: npt.NDArray[np.bool_]) -> bool:
    """Return whether a margin divides the classes, in either direction; images at the margin itself count too."""
    above, below = margin[positive], margin[~positive]
    return bool(above.min() >= below.max() or above.max() <= below.min())


def _maximise(design: Array, offset: Array, positive: npt.NDArray[np.bool_]) -> Array:
    """Maximise the likelihood by Newton's method with step halving, (K,)."""
    coefficients = np.zeros(design.shape[1])
    sign = np.where(positive, -1.0, 1.0)

    def loss(values: Array) -> float:
        return float(np.logaddexp(0, sign * (design @ values + offset)).sum())

    current = loss(coefficients)
    for _ in range(_STEPS):
        probability = expit(design @ coefficients + offset)
        information = (design * (probability * (1 - probability))[:, None]).T @ design
        ridge = ROUNDING_ERROR * np.eye(len(information))  # where all probabilities are 0 or 1
        step = np.linalg.solve(information + ridge, design.T @ (positive - probability))
        step /= max(1.0, float(np.abs(step).max()) / 10)
        for _ in range(_HALVINGS):
            if loss(coefficients + step) <= current:
                break
            step /= 2
        coefficients = coefficients + step
        current = loss(coefficients)
        if np.abs(step).max() < 1e-10:
            break
    return coefficients


def _half_width(variance: float, clusters: Clusters) -> float:
    """Compute half the width of a 95 % interval from the variance; infinite for a single patient."""
    groups = len(np.unique(clusters))
    if groups < 2:
        return float("inf")
    return float(norm.ppf(0.975)) * student_factor(len(clusters), groups) * sqrt(variance)


def _coefficient(fit: LogisticFit, index: int, clusters: Clusters) -> Estimate:
    value = float(fit.coefficients[index])
    half = _half_width(float(fit.covariance[index, index]), clusters)
    return Estimate(value, value - half, value + half)


def _observed_expected(probability: Array, positive: npt.NDArray[np.bool_], clusters: Clusters) -> Estimate | None:
    """Compute the ratio of observed to expected positive images; None for a single patient or probabilities of 0."""
    expected, groups = float(probability.mean()), len(np.unique(clusters))
    if expected < ROUNDING_ERROR or groups < 2:
        return None
    ratio = float(positive.mean()) / expected
    if ratio == 0:
        return Estimate(0.0, 0.0, wilson(0, groups)[1] / expected)
    deviations = residuals(positive - ratio * probability, clusters)
    half = _half_width(deviations.variance, clusters) / (ratio * expected)
    return Estimate(ratio, ratio * exp(-half), ratio * exp(half))


def _log_loss(margin: Array, positive: npt.NDArray[np.bool_], clusters: Clusters) -> Estimate:
    losses = np.logaddexp(0, np.where(positive, -margin, margin))
    value, top = float(losses.mean()), float(np.logaddexp(0, np.abs(margin)).max())
    groups = len(np.unique(clusters))
    if groups < 2:
        return Estimate(value, 0.0, top)
    variance = residuals(losses, clusters).variance * student_factor(len(losses), groups) ** 2
    return Estimate(value, *bounded_interval(value, variance if np.ptp(losses) > ROUNDING_ERROR else 0.0, groups, top))
