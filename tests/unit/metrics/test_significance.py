from itertools import product

import numpy as np
import pytest
from helpers.reference_metrics import mcnemar
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from pneumo.metrics.estimation import average_placements
from pneumo.metrics.intervals import wilson, zero_variance_difference
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.significance import TOP, delong, holm, letters, permutation_tail, permutation_test, placements

Array = np.ndarray


def pairs(probability: Array, positive: Array) -> Array:
    """Return 1, 1/2 or 0 for each pair of a positive and a negative image (DeLong et al., equation 1)."""
    above, below = probability[positive], probability[~positive]
    return np.array([[float(high > low) + 0.5 * float(high == low) for low in below] for high in above])


def delong_by_definition(first: Array, second: Array, positive: Array) -> tuple[float, float]:
    """Compute difference and standard deviation from the matrices S10 and S01 of DeLong et al., in O(n^2)."""
    kernels = [pairs(probability, positive) for probability in (first, second)]
    s10, s01 = (np.cov([kernel.mean(axis=axis) for kernel in kernels]) for axis in (1, 0))
    s = s10 / positive.sum() + s01 / (~positive).sum()
    return float(kernels[0].mean() - kernels[1].mean()), float(np.sqrt([1, -1] @ s @ [1, -1]))


@pytest.mark.parametrize("levels", [3, 10, 10_000])
def test_delong_equals_the_definition(levels: int) -> None:
    generator = np.random.default_rng(levels)
    positive = np.arange(120) % 3 > 0
    common = generator.normal(positive, 1)
    first, second = (np.round(common * 2 + generator.normal(0, 1, 120) * noise * levels) / levels for noise in (0.5, 1))
    found = delong(placements(first, positive), placements(second, positive))
    value, deviation = delong_by_definition(first, second, positive)
    assert found.value == pytest.approx(value)
    assert found.value == pytest.approx(roc_auc_score(positive, first) - roc_auc_score(positive, second))
    assert (found.low, found.high) == pytest.approx((value - 1.959964 * deviation, value + 1.959964 * deviation))
    assert found.p == pytest.approx(2 * norm.cdf(-abs(value) / deviation))


def test_equal_predictions_do_not_differ() -> None:
    positive = np.arange(30) % 2 > 0
    same = placements(np.arange(30) / 30, positive)
    assert delong(same, same) == (0, *zero_variance_difference(0, 15), 1)


def test_difference_without_variance_uses_the_sign_test_and_the_wilson_interval() -> None:
    positive = np.arange(30) % 2 > 0
    perfect, useless = placements(positive.astype(float), positive), placements(np.zeros(30), positive)
    differing = 1 - wilson(15, 15)[0]  # largest fraction of unseen images that may differ
    expected = (0.5, 0.5 - 1.5 * differing, 0.5 + 0.5 * differing, 2 * 0.5**15)
    assert delong(perfect, useless) == pytest.approx(expected)
    many = np.arange(5000) % 2 > 0
    assert delong(placements(many.astype(float), many), placements(np.zeros(5000), many)).p > 0
    assert permutation_test(np.ones(5000, int), np.zeros(5000, int), (1, 1)) > 0


@given(seed=st.integers(0, 2**32 - 1), copies=st.sampled_from([3, 6, 7]))
def test_copies_of_a_seed_do_not_differ_from_it(seed: int, copies: int) -> None:
    generator = np.random.default_rng(seed)
    positive = np.arange(97) < 40
    alone = Predictions.binary(generator.normal(positive, 1), positive, positive)
    copied = average_placements([alone] * copies)
    assert delong(copied, placements(alone.score, positive)) == (0, *zero_variance_difference(0, 40), 1)


def test_delong_p_is_uniform_under_the_null_hypothesis() -> None:
    generator = np.random.default_rng(1)
    positive = np.arange(200) < 120
    p = []
    for _ in range(1500):
        common = generator.normal(2 * positive, 1)
        pair = [placements(common + generator.normal(0, 0.7, 200), positive) for _ in range(2)]
        p.append(delong(*pair).p)
    assert 0.035 <= np.mean(np.array(p) < 0.05) <= 0.065
    assert 0.45 <= np.mean(np.array(p) < 0.5) <= 0.55


def test_mean_of_averaged_placements_is_the_mean_auroc() -> None:
    generator = np.random.default_rng(2)
    positive = np.arange(80) < 50
    seeds = [generator.normal(positive, 1) for _ in range(3)]
    mean = average_placements([Predictions.binary(seed, positive, positive) for seed in seeds])
    assert mean.positive.mean() == pytest.approx(np.mean([roc_auc_score(positive, seed) for seed in seeds]))
    assert mean.negative.mean() == pytest.approx(mean.positive.mean())


def test_mcnemar_exact_test_of_a_known_case() -> None:
    # 2 against 10 images: twice (1 + 12 + 66) of 2^12 assignments
    first = np.array([True] * 2 + [False] * 10 + [True] * 88)
    second = np.array([False] * 2 + [True] * 10 + [True] * 88)
    assert permutation_test(first.astype(int), second.astype(int), (1, 1)) == pytest.approx(158 / 4096)
    assert permutation_test(first.astype(int), first.astype(int), (1, 1)) == 1


@given(seed=st.integers(0, 2**32 - 1))
def test_permutation_test_of_single_seeds_is_mcnemar_test(seed: int) -> None:
    generator = np.random.default_rng(seed)
    first, second = generator.random((2, 60)) < [[0.9], [0.7]]
    assert permutation_test(first.astype(int), second.astype(int), (1, 1)) == pytest.approx(mcnemar(first, second))


@given(seed=st.integers(0, 2**32 - 1), seeds=st.tuples(st.integers(1, 3), st.integers(1, 3)))
def test_permutation_test_equals_full_enumeration(seed: int, seeds: tuple[int, int]) -> None:
    generator = np.random.default_rng(seed)
    first, second = (generator.integers(0, count + 1, 7) for count in seeds)
    gain = first * seeds[1] - second * seeds[0]
    sums = [
        abs(sum(sign * value for sign, value in zip(signs, gain, strict=True))) for signs in product((1, -1), repeat=7)
    ]
    expected = np.mean([total >= abs(gain.sum()) for total in sums])
    assert permutation_test(first, second, seeds) == pytest.approx(expected)


@given(seed=st.integers(0, 2**32 - 1), images=st.integers(1, 300), bias=st.floats(0, 1))
def test_permutation_test_equals_convolution(seed: int, images: int, bias: float) -> None:
    generator = np.random.default_rng(seed)
    gain = generator.integers(1, 7, images) * np.where(generator.random(images) < bias, 1, -1)
    total = abs(int(gain.sum()))
    distribution = np.ones(1)
    for size in np.abs(gain):
        step = np.zeros(2 * size + 1)
        step[[0, -1]] = 0.5
        distribution = np.convolve(distribution, step)
    sums = np.arange(len(distribution)) - len(distribution) // 2
    expected = min(1.0, float(distribution[np.abs(sums) >= total].sum()))
    assert permutation_test(gain, np.zeros(images, int), (1, 1)) == pytest.approx(expected, rel=1e-9)


def test_number_of_fourier_points_follows_from_the_standard_deviation(monkeypatch: pytest.MonkeyPatch) -> None:
    points: list[int] = []
    transform = np.fft.fft

    def count_points(spectrum: np.ndarray) -> np.ndarray:
        points.append(len(spectrum))
        return transform(spectrum)

    monkeypatch.setattr(np.fft, "fft", count_points)
    images = 2_000_000
    gains = np.array([1, 2, 3])
    found = permutation_tail(gains, np.array([images] * 3), 6_000)
    assert points == [int(10 * np.sqrt(14 * images)) + 2]  # although the sum ranges from -12 to 12 million
    assert found == pytest.approx(norm.sf(5_999 / np.sqrt(14 * images)), rel=1e-4)


@pytest.mark.parametrize("only_first", [99_000, 100_300, 110_000])
def test_mcnemar_exact_test_of_many_images(only_first: int) -> None:
    first, second = np.zeros((2, 200_000), int)
    first[:only_first], second[only_first:] = 1, 1
    expected = mcnemar(first > 0, second > 0)
    assert permutation_test(first, second, (1, 1)) == pytest.approx(expected, rel=1e-9)


def test_holm_correction_of_a_known_case() -> None:
    # R's p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm")
    assert holm([0.03, 0.01, 0.05, 0.02, 0.04]) == pytest.approx([0.09, 0.05, 0.09, 0.08, 0.09])
    assert holm([0.6, 0.9]) == [1, 1]
    assert holm([]) == []


def test_letters_of_a_chain() -> None:
    different = np.zeros((4, 4), bool)
    different[0, 2:] = different[1, 3] = True  # each differs from the one after the next
    assert letters(different | different.T) == ["a", "ab", "bc", "c"]
    assert letters(np.zeros((3, 3), bool)) == ["a", "a", "a"]
    assert letters(~np.eye(3, dtype=bool)) == ["a", "b", "c"]
    assert letters(~np.eye(26, dtype=bool)) == list("abcdefghijklmnopqrstuvwxyz")


def test_more_than_26_letters_are_replaced_by_marks_of_the_best() -> None:
    different = np.abs(np.subtract.outer(np.arange(100), np.arange(100))) > 30
    assert letters(different) == ["top"] * 31 + [""] * 69
    matching = np.zeros((80, 80), bool)  # would require 2^40 letters
    matching[np.arange(80), np.arange(80) ^ 1] = True
    assert letters(matching) == ["top", "", *["top"] * 78]


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 12), density=st.floats(0, 1))
def test_letters_are_shared_if_and_only_if_not_significantly_different(seed: int, count: int, density: float) -> None:
    upper = np.triu(np.random.default_rng(seed).random((count, count)) < density, 1)
    different = upper | upper.T
    found = letters(different)
    assume(TOP not in found)  # more than 26 letters required
    for i, j in product(range(count), repeat=2):
        assert (not set(found[i]) & set(found[j])) == different[i, j]
