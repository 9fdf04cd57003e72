from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score
from written import mcnemar

from pneumo.evaluation.significance import Placements, delong, holm, letters, placements, swap_test

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
    assert delong(same, same) == (0, 0, 0, 1)
    perfect, useless = placements(positive.astype(float), positive), placements(np.zeros(30), positive)
    assert delong(perfect, useless) == (0.5, 0.5, 0.5, 0)


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
    mean = Placements(*(np.mean(part, axis=0) for part in zip(*(placements(s, positive) for s in seeds), strict=True)))
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
    assert letters(~np.eye(54, dtype=bool))[-2:] == ["(53)", "(54)"]


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 12), share=st.floats(0, 1))
def test_two_share_a_letter_if_and_only_if_they_cannot_be_told_apart(seed: int, count: int, share: float) -> None:
    upper = np.triu(np.random.default_rng(seed).random((count, count)) < share, 1)
    different = upper | upper.T
    found = letters(different)
    for i, j in product(range(count), repeat=2):
        assert (not set(found[i]) & set(found[j])) == different[i, j]
