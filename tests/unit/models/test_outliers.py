import numpy as np
import pytest
import torch

from pneumo.models.ood_detector import fit_ood_detector

CHANNELS = [8, 32]


def usual(count: int, seed: int, units: float = 1.0) -> np.ndarray:
    """What lies near a space of three dimensions, as a network's means do."""
    random = np.random.default_rng(seed)
    space = np.random.default_rng(0).normal(size=(3, sum(CHANNELS)))
    found = random.normal(size=(count, 3)) @ space + 0.1 * random.normal(size=(count, sum(CHANNELS))) + 5
    found[:, : CHANNELS[0]] *= units
    return found


def score(fitted_on: np.ndarray, other: np.ndarray, seen: np.ndarray) -> np.ndarray:
    fitted = fit_ood_detector(fitted_on, [(other, 0.05)], CHANNELS)
    return fitted.score(torch.from_numpy(seen).float()).numpy()


def test_what_is_allowed_of_the_usual_is_called_unlike_and_all_else_is_told() -> None:
    reference, other = usual(40, 1), usual(200, 2)
    assert (score(reference, other, other) > 1).mean() == pytest.approx(0.045, abs=0.006)
    assert (score(reference, other, usual(2000, 3)) > 1).mean() < 0.1
    strange = np.random.default_rng(4).normal(5, 3, (200, sum(CHANNELS)))  # as far away, in other directions
    assert (score(reference, other, strange) > 1).all()


def test_of_several_kinds_of_usual_images_the_farthest_decides() -> None:
    reference, other, far = usual(40, 1), usual(200, 2), usual(200, 3) + np.random.default_rng(4).normal(size=40)
    kinds = [(other, 0.05)], [(other, 0.05), (far, 0.5)], [(far, 0.5)]
    near, both, farthest = (fit_ood_detector(reference, kind, CHANNELS) for kind in kinds)
    seen = torch.from_numpy(far).float()
    assert (near.score(seen) > 1).all()
    assert (both.score(seen) > 1).float().mean() == pytest.approx(0.5, abs=0.01)
    torch.testing.assert_close(both.score(seen), farthest.score(seen))


def test_the_units_of_a_level_do_not_matter() -> None:
    plain, large = (score(usual(60, 1, u), usual(100, 2, u), usual(50, 3, u)) for u in (1.0, 1e3))
    np.testing.assert_allclose(plain, large, rtol=1e-2)


def test_channels_that_never_move_decide_nothing_that_little_noise_can_do() -> None:
    reference, other = usual(60, 1), usual(100, 2)
    for part in (reference, other):
        part[:, 3] = 2.0
    found = fit_ood_detector(reference, [(other, 0.05)], CHANNELS)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in found)
    near = other.copy()
    near[:, 3] += 1e-6
    np.testing.assert_allclose(*(found.score(torch.from_numpy(x).float()).numpy() for x in (near, other)), rtol=1e-2)


def test_few_images_of_one_kind_are_enough_to_fit() -> None:
    found = fit_ood_detector(np.ones((2, 40)), [(np.ones((1, 40)), 0.01)], CHANNELS)
    assert bool(torch.isfinite(found.score(torch.zeros(1, 40))).all())
