from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from helpers.reference_metrics import draw_metric
from hypothesis import given
from hypothesis import strategies as st

from pneumo.metrics.bootstrap import bootstrap
from pneumo.metrics.clusters import auroc_variance, effective_size, number_clusters, stratify, student_factor
from pneumo.metrics.definitions import paired_bootstrap
from pneumo.metrics.intervals import zero_variance_interval
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.significance import delong, delong_interval, permutation_test, placements

Array = np.ndarray


def draw(generator: np.random.Generator, count: int = 90, patients: int = 30) -> tuple[Array, Array, Array]:
    """Draw scores, classes and clusters; some patients have images of both classes."""
    clusters = number_clusters([str(x) for x in generator.integers(0, patients, count)])
    positive = generator.permutation(np.arange(count) % 3 > 0)
    return np.round(generator.normal(positive, 1, count), 1), positive, clusters


def obuchowski(first: Array, second: Array, positive: Array, clusters: Array) -> float:
    """Compute the variance of an AUROC difference by the sums of Obuchowski (1997), pair by pair."""
    kernels = [
        np.array([[(high > low) + 0.5 * (high == low) for low in score[~positive]] for high in score[positive]])
        for score in (first, second)
    ]
    change = kernels[0] - kernels[1]
    area, (m, n) = change.mean(), change.shape
    ill, well = clusters[positive], clusters[~positive]
    v10 = {i: (change[ill == i].mean(axis=1) - area).sum() for i in set(ill)}
    v01 = {i: (change[:, well == i].mean(axis=0) - area).sum() for i in set(well)}
    both = set(ill) | set(well)
    s10 = len(v10) / ((len(v10) - 1) * m) * sum(value**2 for value in v10.values())
    s01 = len(v01) / ((len(v01) - 1) * n) * sum(value**2 for value in v01.values())
    s11 = len(both) / (len(both) - 1) * sum(v10.get(i, 0) * v01.get(i, 0) for i in both)
    return float(s10 / m + s01 / n + 2 * s11 / (m * n))


@pytest.mark.parametrize("seed", range(3))
def test_obuchowski_variance_equals_the_definition(seed: int) -> None:
    generator = np.random.default_rng(seed)
    first, positive, clusters = draw(generator)
    second = first + generator.normal(0, 1, len(first))
    one, two = (placements(score, positive, clusters) for score in (first, second))
    change = one._replace(positive=one.positive - two.positive, negative=one.negative - two.negative)
    assert auroc_variance(*change.residuals) == pytest.approx(obuchowski(first, second, positive, clusters))
    found = delong(one, two)
    assert found.low < found.value < found.high


@given(seed=st.integers(0, 2**32 - 1))
def test_one_image_per_patient_equals_no_clusters(seed: int) -> None:
    generator = np.random.default_rng(seed)
    first, positive, _ = draw(generator)
    second, names = first + generator.normal(0, 1, len(first)), [f"person{x}" for x in generator.permutation(90)]
    clusters = number_clusters(names)
    alone = [placements(score, positive) for score in (first, second)]
    clustered = [placements(score, positive, clusters) for score in (first, second)]
    assert delong_interval(clustered[0]) == delong_interval(alone[0])
    assert delong(*clustered) == delong(*alone)
    correct = [np.equal(score > 0.5, positive).astype(int) for score in (first, second)]
    p = permutation_test(correct[0], correct[1], (1, 1))
    assert permutation_test(correct[0], correct[1], (1, 1), clusters) == p
    assert effective_size(correct[0].astype(float), clusters) == 90
    with_patients = Predictions.binary(first, positive, first > 0.5, patients=tuple(names))
    without_patients = replace(with_patients, patients=())
    for name in ("f1", "auprc"):
        np.testing.assert_array_equal(draw_metric(with_patients, name, 50), draw_metric(without_patients, name, 50))


def test_variance_of_independent_images_is_exactly_delongs() -> None:
    score, positive, _ = draw(np.random.default_rng(0))
    found = placements(score, positive)
    assert auroc_variance(*found.residuals) == sum(part.var(ddof=1) / len(part) for part in found[:2])


def test_variance_that_differs_from_zero_by_rounding_only_is_zero() -> None:
    """Each patient's positive image scores just above the negative one, so the AUROC is the same for any sample."""
    base, clusters, positive = np.random.default_rng(300).permutation(300), np.repeat(np.arange(300), 2), [True, False]
    found = placements(np.repeat(base, 2) + np.tile([0.3, 0], 300), np.tile(positive, 300), clusters)
    assert auroc_variance(*found.residuals) == 0
    assert delong_interval(found) == zero_variance_interval(found.positive.mean(), 300)


def test_copies_of_images_add_no_information() -> None:
    """Five equal images per patient carry the information of one."""
    generator = np.random.default_rng(1)
    score, positive, _ = draw(generator)
    other, five = score + generator.normal(0, 1, 90), np.repeat(np.arange(90), 5)
    one = [placements(each, positive) for each in (score, other)]
    many = [placements(each[five], positive[five], five) for each in (score, other)]
    assert auroc_variance(*many[0].residuals) == pytest.approx(auroc_variance(*one[0].residuals))
    correct = [np.equal(each > 0.5, positive).astype(int) for each in (score, other)]
    p = permutation_test(correct[0], correct[1], (1, 1))
    assert permutation_test(correct[0][five], correct[1][five], (1, 1), five) == pytest.approx(p)
    values = correct[0].astype(float)
    assert effective_size(values[five], five) == pytest.approx(90 * student_factor(450, 90) ** -2, rel=0.02)
    assert effective_size(np.ones(450), five) == 90  # the correlation within patients cannot be estimated


def test_bootstrap_draws_whole_patients_within_strata() -> None:
    _, positive, clusters = draw(np.random.default_rng(2))
    weights = bootstrap(lambda weights: weights, positive, 500, clusters=clusters)
    for cluster in range(clusters.max() + 1):
        inside = weights[:, clusters == cluster]
        assert (inside == inside[:, :1]).all()
    _, first = np.unique(clusters, return_index=True)
    for stratum in stratify(positive, clusters):
        labels = {frozenset(positive[clusters == cluster].tolist()) for cluster in stratum}
        assert len(labels) == 1
        assert (weights[:, first[stratum]].sum(axis=1) == len(stratum)).all()


@pytest.mark.parametrize("metric", ["auroc", "mcc", "brier"])
def test_difference_without_a_required_class_has_the_whole_range(metric: str) -> None:
    generator = np.random.default_rng(3)
    one, two = (Predictions.binary(score, np.ones(40, bool), score > 0.5) for score in generator.random((2, 40)))
    low, high = paired_bootstrap(one, two, metric, count=50)
    assert (low, high) == {"auroc": (-1, 1), "mcc": (-2, 2), "brier": (low, high)}[metric]
    assert np.isfinite([low, high]).all()


def rejection_rate(test: Callable[[list[Array], Array, Array], float], icc: float, tests: int = 300) -> float:
    """Compute how often p is below 0.05 for two equally good networks on five images of each of 60 patients."""
    generator = np.random.default_rng(int(10 * icc))
    clusters, found = np.repeat(np.arange(60), 5), []
    positive = clusters < 36
    for _ in range(tests):
        of_patient, of_image = generator.normal(size=(2, 60))[:, clusters], generator.normal(size=(2, 300))
        scores = positive + np.sqrt(icc) * of_patient + np.sqrt(1 - icc) * of_image
        found.append(test(list(scores), positive, clusters) < 0.05)
    return float(np.mean(found))


@pytest.mark.parametrize("icc", [0.3, 0.8])
def test_clustered_tests_keep_the_significance_level(icc: float) -> None:
    def auroc_p(scores: list[Array], positive: Array, clusters: Array) -> float:
        return delong(*(placements(score, positive, clusters) for score in scores)).p

    def accuracy_p(scores: list[Array], positive: Array, clusters: Array) -> float:
        correct = [np.equal(score > 0.5, positive).astype(int) for score in scores]
        return permutation_test(correct[0], correct[1], (1, 1), clusters)

    assert rejection_rate(auroc_p, icc) <= 0.09  # 0.05 plus three standard errors
    assert rejection_rate(accuracy_p, icc) <= 0.09
    assert rejection_rate(lambda scores, positive, _: auroc_p(scores, positive, np.arange(300)), icc) > 0.1
