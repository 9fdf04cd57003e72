import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from pneumo.data.corruptions import CORRUPTIONS, SEVERITIES, SHORT_SIDE, corrupt, reduce_image

Pixels = npt.NDArray[np.uint8]
RANDOM = ("gaussian_noise", "shot_noise", "markers", "squeeze", "rotation")
EVERY = [(name, severity) for name in CORRUPTIONS for severity in range(1, SEVERITIES + 1)]


@pytest.fixture(scope="module")
def radiograph() -> Pixels:
    """Create a grey image with structure of all sizes, dark at the borders."""
    generator = np.random.default_rng(0)
    noise = sum(scale * gaussian_filter(generator.normal(size=(260, 240)), scale) for scale in (1, 4, 16))
    shade = np.outer(np.hanning(260), np.hanning(240))
    unit = (noise - noise.min()) / np.ptp(noise)
    return np.asarray(20 + 200 * unit * shade, np.uint8)


def distance(first: Pixels, second: Pixels) -> float:
    return float(np.abs(first.astype(float) - second).mean())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_distance_to_the_clean_image_grows_with_severity(radiograph: Pixels, name: str) -> None:
    for number in range(3):
        distances = [distance(corrupt(radiograph, name, severity, 0, number), radiograph) for severity in range(6)]
        assert distances[0] == 0
        assert distances == sorted(set(distances))


@pytest.mark.parametrize(("name", "severity"), EVERY)
def test_shape_type_and_input_stay(radiograph: Pixels, name: str, severity: int) -> None:
    before = radiograph.copy()
    corrupted = corrupt(radiograph, name, severity)
    assert corrupted.shape == radiograph.shape
    assert corrupted.dtype == np.uint8
    np.testing.assert_array_equal(radiograph, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("shape", [(32, 47), (47, 32)])
def test_flat_and_small_images_are_accepted(name: str, value: int, shape: tuple[int, int]) -> None:
    assert corrupt(np.full(shape, value, np.uint8), name, 5).shape == shape


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_random_numbers_depend_on_seed_and_image_only(radiograph: Pixels, name: str) -> None:
    first = corrupt(radiograph, name, 4, seed=1, number=2)
    np.testing.assert_array_equal(first, corrupt(radiograph, name, 4, seed=1, number=2))
    others = [corrupt(radiograph, name, 4, seed, number) for seed in range(4) for number in range(3)]
    assert any(not np.array_equal(first, other) for other in others) == (name in RANDOM)


def test_severities_share_their_random_numbers(radiograph: Pixels) -> None:
    grey = np.full((224, 224), 128, np.uint8)
    mild, strong = (corrupt(grey, "gaussian_noise", severity).astype(float) - 128 for severity in (1, 5))
    assert np.corrcoef(mild.ravel(), strong.ravel())[0, 1] > 0.99
    assert strong.std() / mild.std() == pytest.approx(2, abs=0.02)


@pytest.mark.parametrize("side", [224, 448])
def test_noise_has_its_level_at_every_resolution(side: int) -> None:
    grey = np.full((side, side), 128, np.uint8)
    noisy = corrupt(grey, "gaussian_noise", 5)
    reduced = np.asarray(Image.fromarray(noisy).resize((224, 224), Image.Resampling.BOX))
    assert reduced.std() / 255 == pytest.approx(0.08, rel=0.03)
    shot = corrupt(grey, "shot_noise", 5)
    reduced = np.asarray(Image.fromarray(shot).resize((224, 224), Image.Resampling.BOX))
    assert reduced.std() / 255 == pytest.approx(np.sqrt(128 / 255 / 80), rel=0.03)


def test_blur_has_the_same_width_at_every_resolution() -> None:
    def spread(side: int) -> float:
        """Measure the standard deviation of a blurred line as a fraction of the side."""
        image = np.zeros((side, side), np.uint8)
        image[:, side // 2 - side // 56 : side // 2 + side // 56] = 255
        profile = corrupt(image, "gaussian_blur", 5)[side // 2].astype(float)
        position = np.arange(side) / side
        mean = np.average(position, weights=profile)
        return float(np.sqrt(np.average((position - mean) ** 2, weights=profile)))

    assert spread(224) == pytest.approx(spread(448), rel=0.02)
    assert spread(224) == pytest.approx(np.sqrt((8 / 224) ** 2 / 12 + (2 / 224) ** 2), rel=0.03)


def test_intensity_changes_follow_their_formulas(radiograph: Pixels) -> None:
    unit = radiograph / 255
    expected = {
        "brightness_up": 1.5 * unit,
        "brightness_down": 0.5 * unit,
        "gamma_dark": unit**1.6,
        "gamma_bright": unit**0.4,
        "contrast_up": unit.mean() + 1.6 * (unit - unit.mean()),
        "contrast_down": unit.mean() + 0.4 * (unit - unit.mean()),
    }
    for name, values in expected.items():
        assert np.abs(corrupt(radiograph, name, 5) - 255 * values.clip(0, 1)).max() <= 0.51, name


def test_collimation_keeps_the_middle_and_blackens_the_border(radiograph: Pixels) -> None:
    covered = corrupt(radiograph, "collimation", 5)
    width = round(0.15 * 240)
    np.testing.assert_array_equal(covered[width:-width, width:-width], radiograph[width:-width, width:-width])
    covered[width:-width, width:-width] = 0
    assert not covered.any()


def test_markers_stay_off_the_centre(radiograph: Pixels) -> None:
    for number in range(8):
        marked = corrupt(radiograph, "markers", 5, number=number)
        np.testing.assert_array_equal(marked[60:-60], radiograph[60:-60])
        assert marked[:60].max() == marked[-60:].max() == 255


def test_large_images_are_reduced_with_their_aspect_ratio_and_small_ones_kept() -> None:
    assert reduce_image(Image.new("L", (3000, 1500))).shape == (SHORT_SIDE, 2 * SHORT_SIDE)
    assert reduce_image(Image.new("L", (300, 100))).shape == (100, 300)
    assert reduce_image(Image.new("L", (3000, 1500)), 600).shape == (600, 1200)
