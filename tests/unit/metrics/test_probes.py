import numpy as np
import pytest

from pneumo.metrics.intervals import zero_variance_interval
from pneumo.metrics.probes import MIN_PATIENTS, probe

LABELS = np.arange(200) % 2
GROUPS = np.arange(200)


def test_a_feature_that_contains_the_label_is_detected() -> None:
    rows = np.stack([LABELS + np.random.default_rng(0).normal(0, 0.1, 200), np.zeros(200)], axis=1)
    found = probe("view", rows, LABELS, GROUPS)
    assert found.name == "view"
    assert found.auroc is not None
    assert found.auroc > 0.98


def test_a_feature_without_information_is_not_above_chance() -> None:
    found = probe("noise", np.random.default_rng(1).normal(0, 1, (200, 3)), LABELS, GROUPS)
    assert found.auroc is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.5 < found.high


@pytest.mark.parametrize("images", [40, 200])
def test_a_constant_feature_is_at_chance_with_the_uncertainty_of_the_sample(images: int) -> None:
    found = probe("constant", np.ones((images, 1)), LABELS[:images], GROUPS[:images])
    assert (found.auroc, found.low, found.high) == (0.5, *zero_variance_interval(0.5, images // 2))


@pytest.mark.parametrize("images", [20, 40, 60, 200])
def test_a_column_equal_to_the_label_is_found_in_small_sets(images: int) -> None:
    found = probe("view", LABELS[:images, None].astype(np.float64), LABELS[:images], GROUPS[:images])
    assert found.auroc == 1
    assert found.low == zero_variance_interval(1, images // 2)[0]
    assert 0.5 < found.low < 1 == found.high


def test_results_of_200_images_are_those_of_leaves_of_20_images() -> None:
    rows = LABELS[:, None] + np.random.default_rng(3).normal(0, 1, (200, 2))
    found = probe("device", rows, LABELS, GROUPS)
    assert (found.auroc, found.low, found.high) == pytest.approx((0.8151, 0.7544537780448719, 0.8720517123574906))


def test_images_of_one_patient_do_not_reveal_each_other() -> None:
    generator = np.random.default_rng(2)
    groups = np.arange(200) // 4
    labels = generator.permutation(50)[groups] % 2
    rows = generator.normal(0, 1, (50, 2))[groups]  # identifies the patient, not the class
    together, apart = probe("patient", rows, labels, groups), probe("patient", rows, labels, GROUPS)
    assert together.auroc is not None
    assert apart.auroc is not None
    assert together.auroc < 0.7
    assert apart.auroc > 0.9


@pytest.mark.parametrize("rare", [0, 1, MIN_PATIENTS - 1])
def test_too_few_patients_of_a_class_give_no_result(rare: int) -> None:
    rows, labels = np.random.default_rng(0).normal(0, 1, (200, 1)), (np.arange(200) < rare).astype(np.int64)
    found = probe("view", rows, labels, GROUPS)
    assert (found.auroc, found.low, found.high, found.estimate) == (None, None, None, None)


def test_three_classes_have_a_mean_auroc() -> None:
    labels = np.arange(150) % 3
    rows = (labels == 2)[:, None] + np.random.default_rng(0).normal(0, 0.1, (150, 1))
    found = probe("site", rows, labels, np.arange(150))
    assert found.auroc is not None
    assert 0.7 < found.auroc < 0.95
