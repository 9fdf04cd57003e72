"""Operating points: temperature, threshold and uncertainty margin, selected on the validation set."""

import logging
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, logsumexp
from torch import softmax

from pneumo.metrics.intervals import Array
from pneumo.metrics.predictions import distance

_log = logging.getLogger(__name__)
_MAX_LOG_TEMPERATURE = np.log(20)
_PRIOR_STD = 0.5  # of the log temperature: 95 % of the prior is between temperatures of 0.38 and 2.7


class OperatingPoint(NamedTuple):
    """Parameters that turn logits into predictions."""

    temperature: float  # logits are divided by it
    threshold: float  # images with a higher probability are predicted positive
    margin: float  # predictions up to this `distance` from the threshold are uncertain


def choose_operating_point(
    logits: Array,
    label: npt.NDArray[np.int64],
    calibrate: bool,
    rule: str,
    sensitivity: float,
    threshold: float,
    uncertain: float,
) -> OperatingPoint:
    """Select temperature, threshold and margin on the validation set.

    Args:
        logits: Validation logits, (N, classes).
        label: Class indices, (N,).
        calibrate: Fit the temperature; otherwise it is 1.
        rule: See `choose_threshold`; `fixed` keeps `threshold`. The threshold is also kept with more than two classes,
            where the most probable class is predicted, and with validation images of one class.
        sensitivity: Sensitivity required by the rule `sensitivity`.
        threshold: Probability threshold of the rule `fixed`.
        uncertain: Fraction of the validation images that are uncertain: those closest to the threshold.
    """
    temperature = fit_temperature(logits, label) if calibrate else 1.0
    # In single precision, like predictions, so that validation images stay on the same side of the threshold.
    probability = softmax(torch.from_numpy(logits).float() / temperature, dim=1).numpy()
    if rule != "fixed" and logits.shape[1] > 2:
        _log.info(
            "decision.threshold=%s has no effect with %d classes: the most probable class is predicted.",
            rule,
            logits.shape[1],
        )
    elif rule != "fixed" and len(np.unique(label)) < 2:
        _log.warning("The validation set has a single class, so no threshold can be selected: %g is kept.", threshold)
    elif rule != "fixed":
        margin = (logits[:, 1] - logits[:, 0]) / temperature
        chosen = choose_threshold(margin, label == 1, rule, sensitivity)
        threshold = to_probability(chosen, margin, probability[:, 1])
    return OperatingPoint(temperature, threshold, choose_margin(probability, threshold, uncertain))


def to_probability(threshold: float, margin: Array, probability: npt.NDArray[np.float32]) -> float:
    """Convert a threshold of margins to one of probabilities that separates the same images.

    Args:
        threshold: Margin above which an image is predicted positive.
        margin: Margin of each image, (N,).
        probability: Probability of the positive class in single precision, (N,); values near 1 round to equal ones.
    """
    lowest = probability[margin > threshold].min(initial=np.inf)
    return float(min(np.float32(expit(threshold)), np.nextafter(lowest, np.float32(0))))


def choose_margin(probability: npt.NDArray[np.float32], threshold: float, uncertain: float) -> float:
    """Select the distance from the threshold within which a fraction of the images, (N, classes), is uncertain."""
    distances = distance(probability, threshold)
    return float(np.quantile(distances, uncertain, method="inverted_cdf")) if uncertain else 0.0


def fit_temperature(logits: Array, label: npt.NDArray[np.int64]) -> float:
    """Fit the temperature, between 1/20 and 20, that calibrates logits, (N, classes), to labels, (N,).

    The objective is the likelihood (Guo et al., On Calibration of Modern Neural Networks, 2017) with two terms whose
    influence decreases with the number of images. Firth's penalty, half the log information, removes the small-sample
    bias (Bias Reduction of Maximum Likelihood Estimates, 1993). A normal prior on the log temperature bounds it for
    separable images, which do not determine a temperature.
    """

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        log_probability = log_softmax(scaled, axis=1)
        likelihood = log_probability[np.arange(len(label)), label].sum()
        mean = (np.exp(log_probability) * scaled).sum(1, keepdims=True)
        # The information about 1 / temperature is this variance times the squared temperature.
        log_information = logsumexp(log_probability, b=(scaled - mean) ** 2) + 2 * log_temperature
        return float(-likelihood - log_information / 2 + (log_temperature / _PRIOR_STD) ** 2 / 2)

    if (logits == logits[:, :1]).all():
        return 1.0  # a constant network, whose information is 0
    result = minimize_scalar(
        loss, bounds=(-_MAX_LOG_TEMPERATURE, _MAX_LOG_TEMPERATURE), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(result.x))


def choose_threshold(margin: Array, positive: npt.NDArray[np.bool_], rule: str, sensitivity: float) -> float:
    """Select the margin above which an image is predicted positive.

    Args:
        margin: Logit of the positive class minus logit of the negative class, (N,).
        positive: True for positive images, (N,); both classes must occur.
        rule: `youden` maximizes the sum of sensitivity and specificity, `accuracy` the number of correct predictions.
            Ties, such as for separable classes, are resolved by the middle of the widest gap between margins.
            `sensitivity` selects the highest margin with at least the required sensitivity. It hardly depends on
            negative images and is well determined even for separable classes.
        sensitivity: Required sensitivity, above 0 and at most 1.
    """
    if rule == "sensitivity":
        ascending = np.sort(margin[positive])
        missed = int(np.floor((1 - sensitivity) * len(ascending) + 1e-9))
        lowest = ascending[missed]
        below = margin[margin < lowest].max(initial=lowest - 2)
        return float((below + lowest) / 2)
    weight = np.where(positive, 1 / positive.sum(), 1 / (~positive).sum()) if rule == "youden" else np.ones(len(margin))
    order = np.argsort(margin, kind="stable")
    ranked, gain = margin[order], np.where(positive, -weight, weight)[order]
    score = np.concatenate([[0.0], np.cumsum(gain)])  # if the i lowest are predicted negative
    edges = np.concatenate([[ranked[0] - 2], ranked, [ranked[-1] + 2]])
    gap = np.diff(edges)
    score[gap <= 0] = -np.inf  # no threshold separates equal margins
    best = np.flatnonzero(score >= score.max() - 1e-12)
    chosen = best[np.argmax(gap[best])]
    return float((edges[chosen] + edges[chosen + 1]) / 2)
