"""Metrics of subgroups, and tests of each level of a factor against all other levels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from pneumo.errors import DataError
from pneumo.metrics.clusters import residuals
from pneumo.metrics.definitions import METRICS, estimates
from pneumo.metrics.intervals import ROUNDING_ERROR, Array, Estimate, subtract
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.significance import MIN_P, Difference, holm, placements

UNKNOWN = "unknown"  # level of images without a value
MAX_LEVELS = 50
MIN_IMAGES = 10  # of a tested level and of all others: smaller ones only weaken Holm's correction of the other tests
TOO_FEW_IMAGES = f"fewer than {MIN_IMAGES} images"
_TOO_FEW_OTHERS = f"fewer than {MIN_IMAGES} images of other levels"
_MAX_SHOWN = 15  # levels of a factor in tables
_METRICS = ("auroc", "sensitivity", "specificity")
_BANDS = ((18, "0-17"), (40, "18-39"), (60, "40-59"), (80, "60-79"))  # upper limits in years
_OLDEST = 150
_YEARS = {"": 1.0, "Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}

Mask = npt.NDArray[np.bool_]


class Subgroup(NamedTuple):
    """Metrics of the images with one level of a factor."""

    factor: str
    level: str
    images: int
    patients: int
    positives: int
    estimates: dict[str, Estimate]  # by metric; metrics that require an absent class are left out
    untested: str | None  # reason why the level is in no test; None if it is tested, on its own or as all others


class SubgroupDifference(NamedTuple):
    """A metric's difference: one level of a factor minus all other levels."""

    factor: str
    level: str
    metric: str
    difference: Difference
    holm: float  # p-value after the Holm correction over all tests


class Subgroups(NamedTuple):
    """Metrics of all subgroups, and all tests between them."""

    groups: list[Subgroup]
    differences: list[SubgroupDifference]

    @property
    def largest(self) -> list[Subgroup]:
        """The groups of the 15 largest levels of each factor, in the same order."""
        ranked: dict[str, list[Subgroup]] = {}
        for group in sorted(self.groups, key=lambda group: -group.images):
            ranked.setdefault(group.factor, []).append(group)
        shown = {group[:2] for groups in ranked.values() for group in groups[:_MAX_SHOWN]}
        return [group for group in self.groups if group[:2] in shown]


def measure_subgroups(predictions: Predictions, factors: Mapping[str, Sequence[str]]) -> Subgroups:
    """Compute AUROC, sensitivity and specificity of each subgroup, and test each level against all other levels.

    Images without a value form the level `unknown`, which takes part in no test. Levels with fewer than 10 images are
    not tested, but belong to the other levels. A factor with two levels has one test per metric. All positive classes
    together count as positive.

    The interval of a difference follows from the intervals of both groups and their correlation, which is caused by
    patients with images in both. The p-value belongs to the normal distribution whose 95 % interval ends where this
    one ends, on the side of 0. So p is below 0.05 if and only if the interval excludes 0.

    Rates of p below 0.05 without a difference were simulated for 80 to 300 patients of one to four images. They were
    1.5 to 5.5 % for the AUROC, 3.5 to 6.3 % for the sensitivity and 2.7 to 6.0 % for the specificity. The lowest belong
    to high AUROCs and small groups.

    Sources: `pneumo.metrics.intervals.subtract`; D. G. Altman, J. M. Bland, How to obtain the P value from a confidence
    interval, 2011.

    Args:
        predictions: Predictions for N images.
        factors: Values of each factor, such as view or sex, (N,) each.

    Raises:
        DataError: A factor has more than 50 levels.
    """
    binary = predictions.as_binary()
    groups: list[Subgroup] = []
    tests: list[tuple[str, str, str, Difference]] = []
    for factor, values in factors.items():
        names = np.array([value or UNKNOWN for value in values])
        levels = sorted(set(names.tolist()), key=lambda level: (level == UNKNOWN, level))
        if len(levels) > MAX_LEVELS:
            raise DataError(
                f"The column {factor!r} has {len(levels)} different values, but subgroups allow at most {MAX_LEVELS}. "
                "Choose a column with categories, or group its values."
            )
        groups += [_measure(binary, factor, level, names) for level in levels]
        tested = [group.level for group in groups if group.factor == factor and group.untested is None]
        for level in tested[:1] if len(tested) == 2 == len(set(levels) - {UNKNOWN}) else tested:
            others = (names != level) & (names != UNKNOWN)
            tests += [(factor, level, *test) for test in _compare(binary, names == level, others)]
    corrected = holm([test[-1].p for test in tests]) if tests else []
    return Subgroups(groups, [SubgroupDifference(*test, p) for test, p in zip(tests, corrected, strict=True)])


def age_bands(values: Sequence[str]) -> list[str]:
    """Group ages into the bands 0-17, 18-39, 40-59, 60-79, 80+ and unknown.

    Ages are in years, or like DICOM's with a unit: 077Y, 18M, 6W, 12D. Ages above 150 years are unknown.
    """
    return [_age_band(value) for value in values]


def parse_age(value: str) -> float | None:
    """Return an age in years; None if it is unknown. See `age_bands`."""
    match = re.fullmatch(r"(\d+(?:[.,]\d*)?)\s*([YMWD]?)", value.strip().upper(), re.ASCII)
    if match is None:
        return None
    years = float(match[1].replace(",", ".")) * _YEARS[match[2]]
    return None if years > _OLDEST else years


def _age_band(value: str) -> str:
    years = parse_age(value)
    if years is None:
        return UNKNOWN
    return next((band for limit, band in _BANDS if years < limit), "80+")


def _measure(binary: Predictions, factor: str, level: str, names: npt.NDArray[np.str_]) -> Subgroup:
    group = binary.take(np.flatnonzero(names == level))
    images, others = len(group.label), int(((names != level) & (names != UNKNOWN)).sum())
    untested = None
    if level == UNKNOWN:
        untested = "unknown value"
    elif images < MIN_IMAGES:
        untested = TOO_FEW_IMAGES
    elif others < MIN_IMAGES:
        untested = _TOO_FEW_OTHERS
    patients, positives = len(np.unique(group.clusters)), int(group.positive.sum())
    return Subgroup(factor, level, images, patients, positives, _estimates(group), untested)


def _estimates(group: Predictions) -> dict[str, Estimate]:
    defined = {"sensitivity": bool(group.positive.any()), "specificity": not group.positive.all()}
    defined["auroc"] = all(defined.values())
    return estimates(group, {name: METRICS[name] for name in _METRICS if defined[name]})


def _compare(binary: Predictions, first: Mask, second: Mask) -> Iterator[tuple[str, Difference]]:
    """Compare the metrics that are defined in both groups."""
    one, other = (_estimates(binary.take(np.flatnonzero(mask))) for mask in (first, second))
    for name in _METRICS:
        if name in one and name in other:
            correlation = _correlation(_influence(binary, name, first), _influence(binary, name, second))
            yield name, _test(one[name], other[name], correlation)


def _test(first: Estimate, second: Estimate, correlation: float) -> Difference:
    value, low, high = subtract(first, second, correlation=correlation)
    low, high = max(-1.0, low), min(1.0, high)
    half = value - low if value > 0 else high - value
    score = float(norm.ppf(0.975)) * abs(value) / half if half > ROUNDING_ERROR else 0.0
    return Difference(value, low, high, max(float(2 * norm.sf(score)), MIN_P))


def _influence(binary: Predictions, metric: str, mask: Mask) -> Array:
    """Compute the influence of each patient on a metric of the masked images, (patients,)."""
    clusters, positive = binary.clusters, binary.positive
    influence = np.zeros(int(clusters.max()) + 1)
    if metric == "auroc":
        parts = list(placements(binary.score[mask], positive[mask], clusters[mask]).residuals)
    else:
        chosen = mask & (positive == (metric == "sensitivity"))
        parts = [residuals(binary.correct[chosen].astype(np.float64), clusters[chosen])]
    for part in parts:
        influence[part.clusters] += part.sums / part.images
    return influence


def _correlation(first: Array, second: Array) -> float:
    norms = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(np.clip(first @ second / norms, -1, 1)) if norms > ROUNDING_ERROR**2 else 0.0
