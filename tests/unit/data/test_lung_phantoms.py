import numpy as np
import pytest
from scipy.ndimage import label

from pneumo.data.lung_phantoms import LungPhantom, convex_hull, draw_lung_phantom, draw_plain_phantom
from pneumo.data.phantoms import draw_radiograph, draw_radiograph_with_lungs

COUNT = 40


@pytest.fixture(scope="module")
def drawn() -> list[LungPhantom]:
    return [draw_lung_phantom(5, number) for number in range(COUNT)]


def test_images_and_masks_have_the_size_of_the_locator(drawn: list[LungPhantom]) -> None:
    for phantom in drawn:
        assert [(plane.shape, plane.dtype) for plane in phantom] == [
            ((64, 64), np.dtype("uint8")),
            ((64, 64), np.dtype("bool")),
            ((64, 64), np.dtype("bool")),
        ]


def test_equal_seeds_and_numbers_give_identical_phantoms_in_any_order(drawn: list[LungPhantom]) -> None:
    for number in (7, 2, 3):
        for first, again in zip(drawn[number], draw_lung_phantom(5, number), strict=True):
            np.testing.assert_array_equal(first, again)
    assert not np.array_equal(drawn[2].image, draw_lung_phantom(6, 2).image)
    assert len({phantom.image.tobytes() for phantom in drawn}) == COUNT


def test_lungs_are_darker_than_their_surroundings(drawn: list[LungPhantom]) -> None:
    darker = [phantom.image[phantom.lungs].mean() < phantom.image[between_lungs(phantom)].mean() for phantom in drawn]
    assert np.mean(darker) > 0.9  # opacities brighten some lungs


def between_lungs(phantom: LungPhantom) -> np.ndarray:
    return np.asarray(phantom.hull & ~phantom.lungs)


def test_hulls_contain_the_lungs_and_are_convex(drawn: list[LungPhantom]) -> None:
    for phantom in drawn:
        assert phantom.hull[phantom.lungs].all()
        for lines in (phantom.hull, phantom.hull.T):
            assert (np.abs(np.diff(np.pad(lines, ((0, 0), (1, 1))).astype(int))).sum(1) <= 2).all()
        assert phantom.hull.sum() < 3.5 * phantom.lungs.sum()


def test_masks_have_no_specks_and_fill_a_tenth_of_the_image(drawn: list[LungPhantom]) -> None:
    for phantom in drawn:
        parts, count = label(phantom.lungs)
        sizes = np.bincount(parts.ravel())[1:]
        assert 1 <= count <= 3
        assert sizes.min() > 0.1 * sizes.max()
        assert phantom.lungs.mean() > 0.08


def test_plain_phantoms_have_the_lungs_on_both_sides_of_the_spine() -> None:
    for number in range(6):
        phantom = draw_plain_phantom(np.random.default_rng(number), "none")
        assert not phantom.lungs[:, 30:34].any(1).all()
        halves = phantom.lungs[:, :32].sum(), phantom.lungs[:, 32:].sum()
        assert 0.4 < halves[0] / halves[1] < 2.5
        inside, between = phantom.image[phantom.lungs].mean(), phantom.image[between_lungs(phantom)].mean()
        assert inside < between - 20


def test_the_air_has_the_geometry_of_the_image() -> None:
    image, air = draw_radiograph_with_lungs(np.random.default_rng(3), np.random.default_rng(4), "bacterial")
    same = draw_radiograph(np.random.default_rng(3), np.random.default_rng(4), "bacterial")
    np.testing.assert_array_equal(image, same)
    assert air.shape == image.shape
    assert -0.1 < air.min() < 0.01
    assert 0.9 < air.max() < 1.1


def test_the_hull_of_two_rectangles_spans_both() -> None:
    mask = np.zeros((20, 30), bool)
    mask[4:8, 3:6] = mask[10:16, 20:25] = True
    hull = convex_hull(mask)
    assert hull[mask].all()
    assert hull[9, 12]
    assert np.argwhere(hull).min(0).tolist() == [4, 3]
    assert np.argwhere(hull).max(0).tolist() == [15, 24]


@pytest.mark.parametrize("columns", [slice(0, 0), slice(5, 6), slice(2, 9)])
def test_the_hull_of_a_line_or_nothing_is_the_mask(columns: slice) -> None:
    mask = np.zeros((10, 12), bool)
    mask[3, columns] = True
    np.testing.assert_array_equal(convex_hull(mask), mask)
