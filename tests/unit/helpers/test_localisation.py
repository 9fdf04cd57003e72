import numpy as np
import pytest
from helpers.localisation import localise


def test_metrics_of_a_known_case() -> None:
    left, right = np.zeros((4, 4), bool), np.zeros((2, 8), bool)
    left[:, :2] = right[:, 6:] = True
    hit, missed = np.zeros((4, 4), np.float32), np.zeros((2, 8), np.float32)
    hit[1, 0], hit[1, 3] = 1, 0.25
    missed[0, 0], missed[1, 7] = 1, 0.5
    found = localise([hit, missed], [left, right])
    assert found.pointing == 0.5
    assert found.energy == pytest.approx((1 / 1.25 + 0.5 / 1.5) / 2)
    assert found.area == (1 / 2 + 1 / 4) / 2
    assert found.other_images == 0.5  # the second map's maximum is inside the first image's mask


def test_an_empty_map_has_no_maximum() -> None:
    mask = np.ones((3, 3), bool)
    found = localise([np.zeros((3, 3), np.float32)], [mask])
    assert (found.pointing, found.energy, found.area, found.other_images) == (0, 0, 1, 0)


def test_random_maps_score_the_fraction_that_the_masks_cover() -> None:
    random = np.random.default_rng(0)
    masks = [np.roll(np.arange(400).reshape(20, 20) < 100, random.integers(20), 0) for _ in range(200)]
    found = localise([random.random((20, 20)).astype(np.float32) for _ in masks], masks)
    assert found.area == 0.25
    for score in (found.pointing, found.energy, found.other_images):
        assert score == pytest.approx(0.25, abs=0.08)
