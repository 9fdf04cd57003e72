import numpy as np
import pytest
from PIL import Image

from pneumo.common.input_format import ASPECTS, HISTOGRAMS, InputFormat
from pneumo.data.grey import square


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (InputFormat(32), (0, 0, 200, 100)),
        (InputFormat(32, 0.5), (50, 25, 150, 75)),
        (InputFormat(32, aspect="crop"), (50, 0, 150, 100)),
        (InputFormat(32, 0.5, "crop"), (75, 25, 125, 75)),
        (InputFormat(32, aspect="pad"), (0, -50, 200, 150)),
        (InputFormat(32, 0.5, "pad"), (50, 0, 150, 100)),
    ],
)
def test_input_box_is_the_region_of_the_image_in_the_input(
    form: InputFormat, expected: tuple[float, float, float, float]
) -> None:
    assert form.input_box(200, 100) == pytest.approx(expected)
    turned = (expected[1], expected[0], expected[3], expected[2])
    assert form.input_box(100, 200) == pytest.approx(turned)


@pytest.mark.parametrize("aspect", ASPECTS)
@pytest.mark.parametrize("size", [(240, 120), (120, 240), (180, 180)])
def test_input_box_agrees_with_the_conversion(aspect: str, size: tuple[int, int]) -> None:
    width, height = size
    form = InputFormat(60, 0.75, aspect)
    ramps = np.broadcast_to(np.linspace(20, 220, width), (height, width)), np.linspace(20, 220, height)[:, None]
    left, top, right, bottom = form.input_box(width, height)
    for axis, (low, high, length) in enumerate(((left, right, width), (top, bottom, height))):
        ramp = np.broadcast_to(ramps[axis], (height, width)).astype(np.uint8)
        line = square(Image.fromarray(ramp), form).astype(float).max(axis)
        position = low + (high - low) * (np.arange(60) + 0.5) / 60
        inside = (position > 3) & (position < length - 3)
        expected = 20 + 200 * (position - 0.5) / (length - 1)
        np.testing.assert_allclose(line[inside], expected[inside], atol=2.5)


def test_defaults_are_omitted_from_files_and_cache_keys() -> None:
    assert InputFormat(32, 0.9).provenance() == {"image_size": 32, "crop_pct": 0.9}
    changed = InputFormat(32, 0.9, "pad", "equalize").provenance()
    assert changed == {"image_size": 32, "crop_pct": 0.9, "aspect": "pad", "histogram": "equalize"}


def test_descriptions_differ() -> None:
    texts = {
        InputFormat(32, crop, aspect, histogram).describe()
        for crop in (1, 0.9)
        for aspect in ASPECTS
        for histogram in HISTOGRAMS
    }
    assert len(texts) == 2 * len(ASPECTS) * len(HISTOGRAMS)
    assert InputFormat(192, 0.857).describe() == (
        "resized to 224 x 224 pixels without keeping its aspect ratio, cropped to the central 192 x 192 pixels"
    )
