"""Reference implementation of likelihood ratios with plain loops."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from helpers.reference_metrics import Numbers, effective, summed


def likelihood_ratios(label: Numbers, predicted: Numbers, patients: NDArray[np.int64]) -> dict[str, list[float]]:
    """Compute both likelihood ratios, each with its interval, by the log method from effective counts."""
    counts = []
    for k in (1, 0):
        hits, own = predicted[label == k], patients[label == k]
        counts.append(np.array([hits.mean(), 1 - hits.mean()]) * effective(hits, own))
    if min(map(min, counts)) == 0:
        counts = [each + 0.5 for each in counts]
    sums = [summed(predicted[label == k], patients[label == k]) for k in (1, 0)]
    total, both = len(sums[0].keys() | sums[1].keys()), sums[0].keys() & sums[1].keys()
    products = sum(sums[0][patient] * sums[1][patient] for patient in both)
    shared = products * total / (total - 1) / (label.sum() * (1 - label).sum())
    ratios = {}
    for k, name in enumerate(("positive", "negative")):
        rates = [each[k] / each.sum() for each in counts]
        variance = sum(1 / each[k] - 1 / each.sum() for each in counts) - 2 * shared / (rates[0] * rates[1])
        step = np.exp(norm.ppf(0.975) * np.sqrt(max(variance, 0)))
        ratios[name] = [value := rates[0] / rates[1], value / step, value * step]
    return ratios
