import numpy as np
import pytest

from pneumo.metrics.probes import probe

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


def test_a_constant_feature_is_exactly_at_chance() -> None:
    found = probe("constant", np.ones((200, 1)), LABELS, GROUPS)
    assert (found.auroc, found.low, found.high) == (0.5, 0.5, 0.5)


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


@pytest.mark.parametrize("labels", [np.zeros(200, np.int64), np.arange(200) // 199])
def test_one_class_or_one_patient_of_a_class_gives_no_result(labels: np.ndarray) -> None:
    found = probe("view", np.random.default_rng(0).normal(0, 1, (200, 1)), labels, GROUPS)
    assert (found.auroc, found.low, found.high) == (None, None, None)


def test_three_classes_have_a_mean_auroc() -> None:
    labels = np.arange(150) % 3
    rows = (labels == 2)[:, None] + np.random.default_rng(0).normal(0, 0.1, (150, 1))
    found = probe("site", rows, labels, np.arange(150))
    assert found.auroc is not None
    assert 0.7 < found.auroc < 0.95
