"""Operating points: temperature, threshold and uncertain margin, selected on validation."""

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
_WIDEST = np.log(20)  # of the temperature's logarithm, to either side
_PRIOR = 0.5  # its standard deviation before any image: 19 of 20 temperatures are then between 0.38 and 2.7


class OperatingPoint(NamedTuple):
    """An operating point."""

    temperature: float  # divisor of logits
    threshold: float  # probability above which an image is predicted positive
    margin: float  # largest `distance` of a prediction that is uncertain


def choose_operating_point(
    logits: Array,
    label: npt.NDArray[np.int64],
    calibrate: bool,
    rule: str,
    sensitivity: float,
    threshold: float,
    uncertain: float,
) -> OperatingPoint:
    """Choose temperature, threshold and margin by predictions for validation images.

    Args:
        logits: (N, classes).
        label: From 0, (N,).
        calibrate: Whether the temperature is fitted; else it is 1.
        rule: See `choose_threshold`. `fixed` keeps `threshold`; so do more than two classes, of which the likeliest is
            predicted, and validation images of one class.
        sensitivity: Sensitivity that `rule` requires.
        threshold: Threshold of probabilities.
        uncertain: Fraction of the validation images, those nearest to the threshold, that is uncertain.
    """
    temperature = fit_temperature(logits, label) if calibrate else 1.0
    # In the single precision of predictions, so that a validation image is on the same side of thresholds there.
    probability = softmax(torch.from_numpy(logits).float() / temperature, dim=1).numpy()
    if rule != "fixed" and logits.shape[1] > 2:
        _log.info("decision.threshold=%s has no effect: of %d classes the likeliest is called", rule, logits.shape[1])
    elif rule != "fixed" and len(np.unique(label)) < 2:
        _log.warning("The validation images are of one class, so none can choose a threshold: %g stays.", threshold)
    elif rule != "fixed":
        margin = (logits[:, 1] - logits[:, 0]) / temperature
        chosen = choose_threshold(margin, label == 1, rule, sensitivity)
        lowest = probability[margin > chosen, 1].min(initial=np.inf)  # those near 1 are the same number
        threshold = float(min(np.float32(expit(chosen)), np.nextafter(lowest, np.float32(0))))
    far = distance(probability, threshold)
    widest = float(np.quantile(far, uncertain, method="inverted_cdf")) if uncertain else 0.0
    return OperatingPoint(temperature, threshold, widest)


def fit_temperature(logits: Array, label: npt.NDArray[np.int64]) -> float:
    """Fit the number by which logits, (N, classes), are divided to calibrate them to labels, (N,), between 1/20 and 20.

    Maximizes the likelihood (Guo et al., On Calibration of Modern Neural Networks, 2017) with two additions that matter
    less as images are added. Firth's penalty, half the logarithm of the information, removes the bias of few images
    (Bias Reduction of Maximum Likelihood Estimates, 1993). A normal prior on the logarithm of the temperature bounds it
    where the images are separable and determine no temperature.
    """

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        log_probability = log_softmax(scaled, axis=1)
        likelihood = log_probability[np.arange(len(label)), label].sum()
        mean = (np.exp(log_probability) * scaled).sum(1, keepdims=True)
        # The information about 1 / temperature is this variance times the temperature's square.
        log_information = logsumexp(log_probability, b=(scaled - mean) ** 2) + 2 * log_temperature
        return float(-likelihood - log_information / 2 + (log_temperature / _PRIOR) ** 2 / 2)

    if (logits == logits[:, :1]).all():
        return 1.0  # of a constant network, whose information is 0
    found = minimize_scalar(loss, bounds=(-_WIDEST, _WIDEST), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def choose_threshold(margin: Array, positive: npt.NDArray[np.bool_], rule: str, sensitivity: float) -> float:
    """Choose the margin above which an image is called positive.

    Args:
        margin: The positive class's logit less the other's, (N,).
        positive: (N,), of which some are and some are not.
        rule: `youden` is the largest sum of sensitivity and specificity, `accuracy` the most right answers; where
            several margins do as well, as between classes that are told apart without error, the middle of the widest
            gap is taken. `sensitivity` is the highest margin at which so large a share of the positive images is
            recognised: it lies amid them, so it is well determined even then, and hardly depends on negative ones.
        sensitivity: Above 0, at most 1.
    """
    if rule == "sensitivity":
        found = np.sort(margin[positive])
        missed = int(np.floor((1 - sensitivity) * len(found) + 1e-9))
        lowest = found[missed]
        below = margin[margin < lowest].max(initial=lowest - 2)
        return float((below + lowest) / 2)
    weight = np.where(positive, 1 / positive.sum(), 1 / (~positive).sum()) if rule == "youden" else np.ones(len(margin))
    order = np.argsort(margin, kind="stable")
    ranked, gain = margin[order], np.where(positive, -weight, weight)[order]
    score = np.concatenate([[0.0], np.cumsum(gain)])  # after calling the i lowest negative
    edges = np.concatenate([[ranked[0] - 2], ranked, [ranked[-1] + 2]])
    gap = np.diff(edges)
    score[gap <= 0] = -np.inf  # no threshold lies between equal margins
    best = np.flatnonzero(score >= score.max() - 1e-12)
    chosen = best[np.argmax(gap[best])]
    return float((edges[chosen] + edges[chosen + 1]) / 2)
