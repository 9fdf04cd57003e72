"""A run's figures once more, from its predictions.csv, by scikit-learn and plain loops."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm
from sklearn import metrics

from pneumo.evaluation.bootstrap import RESAMPLES, bootstrap

Numbers = NDArray[np.float64]


def read(folder: Path) -> tuple[list[str], Numbers, Numbers, Numbers]:
    """Give names of files, labels, probabilities and answers."""
    with (folder / "predictions.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    columns = ([float(line[name] == "PNEUMONIA") for line in lines] for name in ("label", "prediction"))
    label, answer = map(np.array, columns)
    return (
        [line["path"].split("/")[-1] for line in lines],
        label,
        np.array([float(x["probability"]) for x in lines]),
        answer,
    )


def calibration_gaps(label: Numbers, probability: Numbers) -> Numbers:
    gaps = []
    for low in range(16):  # the last holds what is 1
        here = (probability >= low / 15) & (probability < (low + 1) / 15)
        gaps.append(here.mean() * (probability[here].mean() - label[here].mean()) if here.any() else 0.0)
    return np.array(gaps)


def calibration_error(label: Numbers, probability: Numbers) -> float:
    return float(sum(map(abs, calibration_gaps(label, probability))))


def mcc(label: Numbers, probability: Numbers, answer: Numbers) -> float:
    return float(np.corrcoef(label, answer)[0, 1]) if 0 < answer.sum() < len(answer) else 0.0


METRICS: dict[str, Callable[[Numbers, Numbers, Numbers], float]] = {
    "accuracy": lambda label, _, answer: float((label == answer).mean()),
    "auroc": lambda label, probability, _: float(metrics.roc_auc_score(label, probability)),
    "sensitivity": lambda label, _, answer: float(answer[label == 1].mean()),
    "specificity": lambda label, _, answer: float(1 - answer[label == 0].mean()),
    "balanced_accuracy": lambda label, _, answer: float(
        (answer[label == 1].mean() + 1 - answer[label == 0].mean()) / 2
    ),
    "auprc": lambda label, probability, _: float(metrics.average_precision_score(label, probability)),
    "f1": lambda label, _, answer: float(2 * (label * answer).sum() / (label.sum() + answer.sum())),
    "mcc": mcc,
    "ece": lambda label, probability, _: calibration_error(label, probability),
    "brier": lambda label, probability, _: float(((label - probability) ** 2).mean()),
}


def wilson(hits: Numbers) -> tuple[float, float]:
    interval = binomtest(round(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return interval.low, interval.high


def on_logit_scale(value: float, deviation: float) -> tuple[float, float]:
    odds = value / (1 - value)
    step = np.exp(norm.ppf(0.975) * deviation / (value * (1 - value)))
    return odds / step / (1 + odds / step), odds * step / (1 + odds * step)


def delong_deviation(label: Numbers, probability: Numbers) -> float:
    above, below = probability[label == 1], probability[label == 0]
    wins = np.array([[float(high > low) + 0.5 * (high == low) for low in below] for high in above])
    return float(np.sqrt(wins.mean(1).var(ddof=1) / len(above) + wins.mean(0).var(ddof=1) / len(below)))


def calibration_interval(
    label: Numbers, probability: Numbers, resamples: list[NDArray[np.int64]]
) -> tuple[float, float]:
    """Give the ECE's interval: below without what chance adds to gaps that are shrunk by its variance."""
    gaps = calibration_gaps(label, probability)
    drawn = [calibration_gaps(label[chosen], probability[chosen]) for chosen in resamples]
    shrunk = [
        gap * max(0.0, 1 - np.var([other[bin] for other in drawn]) / gap**2) if gap else 0.0
        for bin, gap in enumerate(gaps)
    ]
    added = [np.abs(shrunk + other - gaps).sum() - np.abs(shrunk).sum() for other in drawn]
    deviation = np.std([np.abs(other).sum() for other in drawn], ddof=1)
    ece = calibration_error(label, probability)
    chance = np.percentile([np.abs(other - gaps).sum() for other in drawn], 97.5)
    low = max(0.0, ece - np.percentile(added, 97.5)) if ece > chance else 0.0
    return low, min(1.0, ece + norm.ppf(0.975) * deviation)


def from_shares(name: str, sensitivity: float, specificity: float, label: Numbers) -> float:
    ill, well = float(label.sum()), float((1 - label).sum())
    true, false = sensitivity * ill, (1 - specificity) * well
    if name == "balanced_accuracy":
        return (sensitivity + specificity) / 2
    if name == "f1":
        return 2 * true / (ill + true + false)
    called = true + false
    spread = ill * well * called * (ill + well - called)
    return float((true * (well - false) - false * (ill - true)) / np.sqrt(spread)) if spread > 0 else 0.0


def put_together(
    name: str, value: float, label: Numbers, answer: Numbers, ends: dict[str, tuple[float, float]]
) -> tuple[float, float]:
    """Give the interval of what follows from two shares, by Zou and Donner, where nothing varies."""
    own = METRICS["sensitivity"](label, answer, answer), METRICS["specificity"](label, answer, answer)
    reach = [
        np.hypot(
            from_shares(name, ends["sensitivity"][end], own[1], label) - value,
            from_shares(name, own[0], ends["specificity"][end], label) - value,
        )
        for end in (0, 1)
    ]
    return max(-1.0 if name == "mcc" else 0.0, value - reach[0]), min(1.0, value + reach[1])


def recompute(folder: Path) -> dict[str, float]:
    """Give all that results.json says of the test, names as there."""
    files, label, probability, answer = read(folder)
    values = {name: metric(label, probability, answer) for name, metric in METRICS.items()}
    found = {f"test_{name}": value for name, value in values.items()}
    intervals = {
        "accuracy": wilson((label == answer).astype(float)),
        "sensitivity": wilson(answer[label == 1]),
        "specificity": wilson(1 - answer[label == 0]),
        "auroc": on_logit_scale(values["auroc"], delong_deviation(label, probability)),
    }
    drawn = bootstrap(lambda weights: weights, label == 1).astype(int)  # the same resamples
    assert len(drawn) == RESAMPLES
    resamples = [np.repeat(np.arange(len(label)), counts) for counts in drawn]
    intervals["ece"] = calibration_interval(label, probability, resamples)
    draws: dict[str, list[float]] = {name: [] for name in METRICS if name not in intervals}
    for chosen in resamples:
        for name, values_of in draws.items():
            values_of.append(METRICS[name](label[chosen], probability[chosen], answer[chosen]))
    for name, values_of in draws.items():
        low, high = np.percentile(values_of, [2.5, 97.5])
        if name in ("balanced_accuracy", "f1", "mcc") and len(set(values_of)) == 1:
            low, high = put_together(name, values[name], label, answer, intervals)
        intervals[name] = (low, high)
    intervals["auprc"] = on_logit_scale(values["auprc"], float(np.std(draws["auprc"], ddof=1)))
    for subtype, word in (("bacterial", "_bacteria_"), ("viral", "_virus_")):
        called = answer[np.array([word in file for file in files]) & (label == 1)]
        found[f"test_sensitivity_{subtype}"] = float(called.mean())
        intervals[f"sensitivity_{subtype}"] = wilson(called)
    found["test_auroc_bacterial_viral"] = -1.0  # two classes tell nothing of subtypes
    intervals["auroc_bacterial_viral"] = (0.0, 1.0)
    for name, (low, high) in intervals.items():
        found[f"test_{name}_ci_low"], found[f"test_{name}_ci_high"] = float(low), float(high)
    return found
