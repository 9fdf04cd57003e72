from itertools import product

import numpy as np
import pytest
from helpers.reference_metrics import mcnemar
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from pneumo.metrics.estimation import average_placements
from pneumo.metrics.intervals import unvaried_difference, wilson
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.significance import TOP, delong, holm, letters, placements, swap_tail, swap_test

Array = np.ndarray


def pairs(probability: Array, positive: Array) -> Array:
    """Give 1, 1/2 or 0 for each pair of a positive and a negative image: the kernel of DeLong et al., equation 1."""
    above, below = probability[positive], probability[~positive]
    return np.array([[float(high > low) + 0.5 * float(high == low) for low in below] for high in above])


def by_definition(first: Array, second: Array, positive: Array) -> tuple[float, float]:
    """Give difference and deviation by the matrices S10 and S01 of DeLong et al., in O(n^2)."""
    kernels = [pairs(probability, positive) for probability in (first, second)]
    s10, s01 = (np.cov([kernel.mean(axis=axis) for kernel in kernels]) for axis in (1, 0))
    s = s10 / positive.sum() + s01 / (~positive).sum()
    return float(kernels[0].mean() - kernels[1].mean()), float(np.sqrt([1, -1] @ s @ [1, -1]))


@pytest.mark.parametrize("levels", [3, 10, 10_000])
def test_delongs_test_is_that_of_the_definition(levels: int) -> None:
    generator = np.random.default_rng(levels)
    positive = np.arange(120) % 3 > 0
    common = generator.normal(positive, 1)
    first, second = (np.round(common * 2 + generator.normal(0, 1, 120) * noise * levels) / levels for noise in (0.5, 1))
    found = delong(placements(first, positive), placements(second, positive))
    value, deviation = by_definition(first, second, positive)
    assert found.value == pytest.approx(value)
    assert found.value == pytest.approx(roc_auc_score(positive, first) - roc_auc_score(positive, second))
    assert (found.low, found.high) == pytest.approx((value - 1.959964 * deviation, value + 1.959964 * deviation))
    assert found.p == pytest.approx(2 * norm.cdf(-abs(value) / deviation))


def test_equal_answers_do_not_differ() -> None:
    positive = np.arange(30) % 2 > 0
    same = placements(np.arange(30) / 30, positive)
    assert delong(same, same) == (0, *unvaried_difference(0, 15), 1)


def test_a_difference_that_all_images_share_has_the_sign_tests_p_and_wilsons_width() -> None:
    positive = np.arange(30) % 2 > 0
    perfect, useless = placements(positive.astype(float), positive), placements(np.zeros(30), positive)
    otherwise = 1 - wilson(15, 15)[0]  # the fraction of images that may behave otherwise
    expected = (0.5, 0.5 - 1.5 * otherwise, 0.5 + 0.5 * otherwise, 2 * 0.5**15)
    assert delong(perfect, useless) == pytest.approx(expected)
    many = np.arange(5000) % 2 > 0
    assert delong(placements(many.astype(float), many), placements(np.zeros(5000), many)).p > 0
    assert swap_test(np.ones(5000, int), np.zeros(5000, int), (1, 1)) > 0


@given(seed=st.integers(0, 2**32 - 1), copies=st.sampled_from([3, 6, 7]))
def test_copies_of_a_seed_do_not_differ_from_it(seed: int, copies: int) -> None:
    generator = np.random.default_rng(seed)
    positive = np.arange(97) < 40
    alone = Predictions.binary(generator.normal(positive, 1), positive, positive)
    copied = average_placements([alone] * copies)
    assert delong(copied, placements(alone.score, positive)) == (0, *unvaried_difference(0, 40), 1)


def test_where_nothing_differs_delongs_p_is_below_a_level_that_often() -> None:
    generator = np.random.default_rng(1)
    positive = np.arange(200) < 120
    p = []
    for _ in range(1500):
        common = generator.normal(2 * positive, 1)
        sides = [placements(common + generator.normal(0, 0.7, 200), positive) for _ in range(2)]
        p.append(delong(*sides).p)
    assert 0.035 <= np.mean(np.array(p) < 0.05) <= 0.065
    assert 0.45 <= np.mean(np.array(p) < 0.5) <= 0.55


def test_placements_of_seeds_average_to_the_mean_auroc() -> None:
    generator = np.random.default_rng(2)
    positive = np.arange(80) < 50
    seeds = [generator.normal(positive, 1) for _ in range(3)]
    mean = average_placements([Predictions.binary(seed, positive, positive) for seed in seeds])
    assert mean.positive.mean() == pytest.approx(np.mean([roc_auc_score(positive, seed) for seed in seeds]))
    assert mean.negative.mean() == pytest.approx(mean.positive.mean())


def test_mcnemars_exact_test_of_a_known_case() -> None:
    # 2 against 10 images: twice (1 + 12 + 66) of 2^12 ways
    first = np.array([True] * 2 + [False] * 10 + [True] * 88)
    second = np.array([False] * 2 + [True] * 10 + [True] * 88)
    assert swap_test(first.astype(int), second.astype(int), (1, 1)) == pytest.approx(158 / 4096)
    assert swap_test(first.astype(int), first.astype(int), (1, 1)) == 1


@given(seed=st.integers(0, 2**32 - 1))
def test_swaps_of_one_seed_each_are_mcnemars_test(seed: int) -> None:
    generator = np.random.default_rng(seed)
    first, second = generator.random((2, 60)) < [[0.9], [0.7]]
    assert swap_test(first.astype(int), second.astype(int), (1, 1)) == pytest.approx(mcnemar(first, second))


@given(seed=st.integers(0, 2**32 - 1), seeds=st.tuples(st.integers(1, 3), st.integers(1, 3)))
def test_swaps_of_several_seeds_are_all_counted(seed: int, seeds: tuple[int, int]) -> None:
    generator = np.random.default_rng(seed)
    first, second = (generator.integers(0, count + 1, 7) for count in seeds)
    gain = first * seeds[1] - second * seeds[0]
    sums = [
        abs(sum(sign * value for sign, value in zip(signs, gain, strict=True))) for signs in product((1, -1), repeat=7)
    ]
    expected = np.mean([total >= abs(gain.sum()) for total in sums])
    assert swap_test(first, second, seeds) == pytest.approx(expected)


@given(seed=st.integers(0, 2**32 - 1), images=st.integers(1, 300), bias=st.floats(0, 1))
def test_chances_of_sums_are_those_of_convolutions(seed: int, images: int, bias: float) -> None:
    generator = np.random.default_rng(seed)
    gain = generator.integers(1, 7, images) * np.where(generator.random(images) < bias, 1, -1)
    total = abs(int(gain.sum()))
    chance = np.ones(1)
    for size in np.abs(gain):
        step = np.zeros(2 * size + 1)
        step[[0, -1]] = 0.5
        chance = np.convolve(chance, step)
    expected = min(1.0, float(chance[np.abs(np.arange(len(chance)) - len(chance) // 2) >= total].sum()))
    assert swap_test(gain, np.zeros(images, int), (1, 1)) == pytest.approx(expected, rel=1e-9)


def test_many_swaps_take_no_more_points_than_their_deviation_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    points: list[int] = []
    transform = np.fft.fft

    def count_points(spectrum: np.ndarray) -> np.ndarray:
        points.append(len(spectrum))
        return transform(spectrum)

    monkeypatch.setattr(np.fft, "fft", count_points)
    images = 2_000_000
    gains = np.array([1, 2, 3])
    found = swap_tail(gains, np.array([images] * 3), 6_000)
    assert points == [int(10 * np.sqrt(14 * images)) + 2]  # of a sum that reaches from -12 to 12 millions
    assert found == pytest.approx(norm.sf(5_999 / np.sqrt(14 * images)), rel=1e-4)


@pytest.mark.parametrize("only_first", [99_000, 100_300, 110_000])
def test_mcnemars_exact_test_of_many_images(only_first: int) -> None:
    first, second = np.zeros((2, 200_000), int)
    first[:only_first], second[only_first:] = 1, 1
    expected = mcnemar(first > 0, second > 0)
    assert swap_test(first, second, (1, 1)) == pytest.approx(expected, rel=1e-9)


def test_holms_correction_of_a_known_case() -> None:
    # R's p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm")
    assert holm([0.03, 0.01, 0.05, 0.02, 0.04]) == pytest.approx([0.09, 0.05, 0.09, 0.08, 0.09])
    assert holm([0.6, 0.9]) == [1, 1]
    assert holm([]) == []


def test_letters_of_a_chain() -> None:
    different = np.zeros((4, 4), bool)
    different[0, 2:] = different[1, 3] = True  # each can be told from the next but one
    assert letters(different | different.T) == ["a", "ab", "bc", "c"]
    assert letters(np.zeros((3, 3), bool)) == ["a", "a", "a"]
    assert letters(~np.eye(3, dtype=bool)) == ["a", "b", "c"]
    assert letters(~np.eye(26, dtype=bool)) == list("abcdefghijklmnopqrstuvwxyz")


def test_too_many_letters_are_replaced_by_marks_of_what_may_be_best() -> None:
    apart = np.abs(np.subtract.outer(np.arange(100), np.arange(100))) > 30
    assert letters(apart) == ["top"] * 31 + [""] * 69
    matching = np.zeros((80, 80), bool)  # whose letters would be 2^40
    matching[np.arange(80), np.arange(80) ^ 1] = True
    assert letters(matching) == ["top", "", *["top"] * 78]


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 12), share=st.floats(0, 1))
def test_two_share_a_letter_if_and_only_if_they_cannot_be_told_apart(seed: int, count: int, share: float) -> None:
    upper = np.triu(np.random.default_rng(seed).random((count, count)) < share, 1)
    different = upper | upper.T
    found = letters(different)
    assume(TOP not in found)  # where more letters are needed than there are
    for i, j in product(range(count), repeat=2):
        assert (not set(found[i]) & set(found[j])) == different[i, j]
