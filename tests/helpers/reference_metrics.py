"""Reference implementation of test metrics and intervals with scikit-learn and plain loops."""

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import beta, binomtest, norm, t
from sklearn import metrics

from pneumo.metrics.bootstrap import RESAMPLES, SEED, Resamples, bootstrap
from pneumo.metrics.calibration import chance_errors
from pneumo.metrics.definitions import METRICS as REGISTRY
from pneumo.metrics.predictions import Predictions

Numbers = NDArray[np.float64]


def draw_metric(predictions: Predictions, name: str, count: int = RESAMPLES, seed: int = SEED) -> Numbers:
    """Compute a metric on each bootstrap draw."""
    compute, clusters = REGISTRY[name].compute, predictions.clusters
    return bootstrap(lambda weights: compute(Resamples(predictions, weights)), predictions.label, count, seed, clusters)


def read(folder: Path) -> tuple[list[str], Numbers, Numbers, Numbers]:
    """Read file names, labels, probabilities and predicted labels."""
    with (folder / "predictions.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    columns = ([float(line[name] == "PNEUMONIA") for line in lines] for name in ("label", "prediction"))
    label, predicted = map(np.array, columns)
    return (
        [line["path"].split("/")[-1] for line in lines],
        label,
        np.array([float(x["probability"]) for x in lines]),
        predicted,
    )


def read_patients(folder: Path) -> NDArray[np.int64]:
    """Return patient indices in the order of first appearance; without splits.csv, each image is one patient."""
    with (folder / "predictions.csv").open(newline="") as file:
        names = [line["path"] for line in csv.DictReader(file)]
    if (folder / "splits.csv").is_file():
        with (folder / "splits.csv").open(newline="") as file:
            patient = {line["path"]: line["patient"] for line in csv.DictReader(file)}
        names = [patient[name] for name in names]
    unique = list(dict.fromkeys(names))
    return np.array([unique.index(name) for name in names])


def bin_residuals(label: Numbers, probability: Numbers) -> Numbers:
    residuals = []
    for low in range(15):  # the last bin includes 1
        inside = (probability >= low / 15) & ((probability < (low + 1) / 15) | (low == 14))
        residuals.append(inside.mean() * (probability[inside].mean() - label[inside].mean()) if inside.any() else 0.0)
    return np.array(residuals)


def calibration_error(label: Numbers, probability: Numbers) -> float:
    return float(sum(map(abs, bin_residuals(label, probability))))


def mcc(label: Numbers, probability: Numbers, predicted: Numbers) -> float:
    return float(np.corrcoef(label, predicted)[0, 1]) if 0 < predicted.sum() < len(predicted) else 0.0


METRICS: dict[str, Callable[[Numbers, Numbers, Numbers], float]] = {
    "accuracy": lambda label, _, predicted: float((label == predicted).mean()),
    "auroc": lambda label, probability, _: float(metrics.roc_auc_score(label, probability)),
    "sensitivity": lambda label, _, predicted: float(predicted[label == 1].mean()),
    "specificity": lambda label, _, predicted: float(1 - predicted[label == 0].mean()),
    "balanced_accuracy": lambda label, _, predicted: float(
        (predicted[label == 1].mean() + 1 - predicted[label == 0].mean()) / 2
    ),
    "auprc": lambda label, probability, _: float(metrics.average_precision_score(label, probability)),
    "f1": lambda label, _, predicted: float(2 * (label * predicted).sum() / (label.sum() + predicted.sum())),
    "mcc": mcc,
    "ece": lambda label, probability, _: calibration_error(label, probability),
    "brier": lambda label, probability, _: float(((label - probability) ** 2).mean()),
}


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Compute the exact p-value of McNemar's test from the correctness of two runs on the same images."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    return float(binomtest(only_first, only_first + only_second).pvalue) if only_first + only_second else 1.0


def summed(values: Numbers, patients: NDArray[np.int64]) -> dict[int, float]:
    """Sum deviations from the mean within each patient."""
    return {patient: float((values - values.mean())[patients == patient].sum()) for patient in set(patients.tolist())}


def widening(images: int, patients: int) -> float:
    return float(t.ppf(0.975, patients - 1) / t.ppf(0.975, images - 1))


def effective(hits: Numbers, patients: NDArray[np.int64]) -> float:
    """Compute the effective sample size from the design effect and the squared ratio of two t quantiles."""
    count, images = len(set(patients.tolist())), len(hits)
    if count < 2 or len(set(hits.tolist())) == 1:
        return count
    squares = sum(value**2 for value in summed(hits, patients).values())
    effect = squares * count / (count - 1) / images / hits.var(ddof=1)
    return float(images / max(1, effect) / widening(images, count) ** 2)


def wilson(hits: Numbers, patients: NDArray[np.int64]) -> tuple[float, float]:
    total, z = effective(hits, patients), norm.ppf(0.975)
    middle, spread = hits.mean() + z**2 / (2 * total), hits.mean() * (1 - hits.mean()) / total
    half = z * np.sqrt(spread + z**2 / (4 * total**2))
    return (middle - half) / (1 + z**2 / total), (middle + half) / (1 + z**2 / total)


def on_logit_scale(value: float, deviation: float) -> tuple[float, float]:
    odds = value / (1 - value)
    step = np.exp(norm.ppf(0.975) * deviation / (value * (1 - value)))
    return odds / step / (1 + odds / step), odds * step / (1 + odds * step)


def shrink(variance: float, expected: float, units: int, weight: int) -> float:
    return float(np.average([variance, expected], weights=[units - 1, weight]))


def obuchowski(label: Numbers, probability: Numbers, patients: NDArray[np.int64]) -> tuple[float, float]:
    """Compute the standard deviation of the AUROC, and a factor that widens that of the average precision.

    The standard deviation is widened for few patients in the smaller class, the factor for few negative patients.
    """
    above, below = probability[label == 1], probability[label == 0]
    wins = np.array([[float(high > low) + 0.5 * (high == low) for low in below] for high in above])
    sums = summed(wins.mean(1), patients[label == 1]), summed(wins.mean(0), patients[label == 0])
    images = len(above), len(below)
    counts = [len(each) for each in sums]
    own = [
        float(sum(value**2 for value in each.values())) * units / (units - 1) / count**2
        for each, units, count in zip(sums, counts, images, strict=True)
    ]
    area = float(wins.mean())
    expected = max(2 * each**2 / (1 + each) - each**2 for each in (area, 1 - area))
    prior = [expected / count for count in images]
    variance = sum(shrink(value, each, units, 2) for value, each, units in zip(own, prior, counts, strict=True))
    freedom = sum(own) ** 2 / sum(value**2 / (units - 1) for value, units in zip(own, counts, strict=True))
    ratio = (own[0] + shrink(own[1], prior[1], counts[1], 3)) / sum(own)
    precision = np.sqrt(ratio) * t.ppf(0.975, freedom) / t.ppf(0.975, 1e9)
    total = len(sums[0].keys() | sums[1].keys())
    products = sum(sums[0][patient] * sums[1][patient] for patient in sums[0].keys() & sums[1].keys())
    variance += 2 * products * total / (total - 1) / (images[0] * images[1])
    smaller = int(len(sums[1]) < len(sums[0]))
    return float(np.sqrt(variance)) * widening(images[smaller], len(sums[smaller])), float(precision)


def calibration_interval(
    label: Numbers, probability: Numbers, resamples: list[NDArray[np.int64]], patients: NDArray[np.int64]
) -> tuple[float, float]:
    """Compute the interval of an ECE, with a lower end that is corrected for bias due to noise."""
    residuals = bin_residuals(label, probability)
    drawn = [bin_residuals(label[chosen], probability[chosen]) for chosen in resamples]
    shrunk = [
        residual * max(0.0, 1 - np.var([other[bin] for other in drawn]) / residual**2) if residual else 0.0
        for bin, residual in enumerate(residuals)
    ]
    added = [np.abs(shrunk + other - residuals).sum() - np.abs(shrunk).sum() for other in drawn]
    deviation = np.std([np.abs(other).sum() for other in drawn], ddof=1)
    ece = calibration_error(label, probability)
    chance = np.percentile(chance_errors(probability, RESAMPLES, patients), 97.5)
    low = max(0.0, ece - np.percentile(added, 97.5)) if ece > chance else 0.0
    return low, min(1.0, ece + norm.ppf(0.975) * deviation)


def count_intervals(label: Numbers, predicted: Numbers, patients: NDArray[np.int64]) -> dict[str, tuple[float, float]]:
    """Compute percentiles over the Jeffreys posteriors of sensitivity and specificity, at 1,000 quantiles each."""
    quantiles = (np.arange(1000) + 0.5) / 1000
    ill, well = float(label.sum()), float((1 - label).sum())
    hits = float((label * predicted).sum()), float(((1 - label) * (1 - predicted)).sum())
    correct = (label == predicted).astype(float)
    ratio = [effective(correct[label == k], patients[label == k]) / n for k, n in ((1, ill), (0, well))]
    sensitivity = beta.ppf(quantiles, hits[0] * ratio[0] + 0.5, (ill - hits[0]) * ratio[0] + 0.5)[:, None]
    specificity = beta.ppf(quantiles, hits[1] * ratio[1] + 0.5, (well - hits[1]) * ratio[1] + 0.5)
    true, false = ill * sensitivity, well * (1 - specificity)
    alarms = true + false
    draws = {
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "f1": 2 * true / (ill + alarms),
        "mcc": (true * well - false * ill) / np.sqrt(ill * well * alarms * (ill + well - alarms)),
    }
    values = {name: METRICS[name](label, label, predicted) for name in draws}
    ends = {name: np.percentile(values_drawn, [2.5, 97.5]) for name, values_drawn in draws.items()}
    return {name: (min(low, values[name]), max(high, values[name])) for name, (low, high) in ends.items()}


def check_results(results: Mapping[str, Any], folder: Path) -> None:
    """Compare results with the reference; quantiles and pneumo's Sobol points differ in the third digit."""
    for name, value in compute(folder).items():
        counted = name.endswith(("_low", "_high")) and any(each in name for each in ("balanced_accuracy", "f1", "mcc"))
        assert results[name] == pytest.approx(value, abs=2e-3 if counted else 1e-6), name


def compute(folder: Path) -> dict[str, float]:
    """Compute test metrics and intervals by their keys in results.json."""
    files, label, probability, predicted = read(folder)
    patients = read_patients(folder)
    deviation, precision_widening = obuchowski(label, probability, patients)
    values = {name: metric(label, probability, predicted) for name, metric in METRICS.items()}
    results = {f"test_{name}": value for name, value in values.items()}
    intervals = {
        "accuracy": wilson((label == predicted).astype(float), patients),
        "sensitivity": wilson(predicted[label == 1], patients[label == 1]),
        "specificity": wilson(1 - predicted[label == 0], patients[label == 0]),
        "auroc": on_logit_scale(values["auroc"], deviation),
    }
    drawn = bootstrap(lambda weights: weights, label == 1, clusters=patients).astype(int)  # the same draws as pneumo
    assert len(drawn) == RESAMPLES
    resamples = [np.repeat(np.arange(len(label)), counts) for counts in drawn]
    intervals["ece"] = calibration_interval(label, probability, resamples, patients)
    intervals |= count_intervals(label, predicted, patients)
    draws: dict[str, list[float]] = {name: [] for name in METRICS if name not in intervals}
    for chosen in resamples:
        for name, values_of in draws.items():
            values_of.append(METRICS[name](label[chosen], probability[chosen], predicted[chosen]))
    intervals["auprc"] = on_logit_scale(values["auprc"], float(np.std(draws["auprc"], ddof=1)) * precision_widening)
    brier = values["brier"]
    units = len(set(patients.tolist()))
    variance = shrink(float(np.var(draws["brier"], ddof=1)), brier * (1 - brier) / units, units, 4)
    intervals["brier"] = on_logit_scale(brier, float(np.sqrt(variance)))
    named = any("_bacteria_" in file for file in files)
    for subtype, infix in (("bacterial", "_bacteria_"), ("viral", "_virus_")) if named else ():
        chosen = np.array([infix in file for file in files]) & (label == 1)
        detected = predicted[chosen]
        results[f"test_sensitivity_{subtype}"] = float(detected.mean())
        intervals[f"sensitivity_{subtype}"] = wilson(detected, patients[chosen])
    if named:
        results["test_auroc_bacterial_viral"] = -1.0  # not defined for two classes
        intervals["auroc_bacterial_viral"] = (0.0, 1.0)
    for name, (low, high) in intervals.items():
        results[f"test_{name}_ci_low"], results[f"test_{name}_ci_high"] = float(low), float(high)
    return results
