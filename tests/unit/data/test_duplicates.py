import io
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pneumo.data.duplicates import group_duplicates, similar_pairs
from pneumo.data.phantoms import draw_radiograph

Pixels = NDArray[np.uint8]


def draw(count: int, patient: int | None = None, size: int = 224) -> Pixels:
    """Draw images of `count` patients, or of the given one."""
    images = []
    for number in range(count):
        person = np.random.default_rng([0, number if patient is None else patient, 1])
        images.append(draw_radiograph(person, np.random.default_rng([0, number]), ("none", "viral")[number % 2]))
    return np.stack([square(Image.fromarray(image), size) for image in images])


def square(image: Image.Image, size: int = 224) -> Pixels:
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def saved(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream)


def resized(image: Image.Image, scale: float) -> Image.Image:
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)


def exposed(image: Image.Image, brightness: float, contrast: float) -> Image.Image:
    pixels = np.asarray(image, float)
    return Image.fromarray(
        np.clip((pixels - pixels.mean()) * contrast + pixels.mean() + brightness, 0, 255).astype(np.uint8)
    )


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "poor JPEG": lambda image: saved(image, 30),
    "half size": lambda image: saved(resized(image, 0.5), 90),
    "double size": lambda image: saved(resized(image, 2), 90),
    "darker": lambda image: exposed(image, -25, 0.9),
    "brighter": lambda image: exposed(image, 25, 1.1),
    "cropped below": lambda image: image.crop((0, 0, image.width, round(0.97 * image.height))),
    "cropped at a corner": lambda image: image.crop((6, 6, image.width, image.height)),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "all at once": lambda image: saved(exposed(resized(image.crop((3, 0, 222, 219)), 0.7), 20, 0.95), 50),
}


@pytest.mark.parametrize("change", COPIES.values(), ids=COPIES)
def test_only_modified_copies_are_detected(change: Callable[[Image.Image], Image.Image]) -> None:
    images = draw(24)
    copies = np.stack([square(change(Image.fromarray(image))) for image in images[:8]])
    assert similar_pairs(np.concatenate([images, copies])) == [(number, 24 + number) for number in range(8)]


def test_other_images_of_the_same_patient_are_not_copies() -> None:
    assert similar_pairs(draw(30, patient=5)) == []


def test_copies_of_copies_are_in_the_group_of_the_first_image() -> None:
    a, b, c = draw(3)
    once = square(saved(Image.fromarray(b), 40))
    twice = square(saved(resized(Image.fromarray(once), 0.6), 40))
    assert group_duplicates(np.stack([a, b, twice, c, once, a])).tolist() == [0, 1, 1, 3, 1, 0]


def test_images_without_structure_are_copies_only_if_identical() -> None:
    black, white = np.zeros((40, 40), np.uint8), np.full((40, 40), 255, np.uint8)
    assert group_duplicates(np.stack([black, white, black])).tolist() == [0, 1, 0]


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_have_no_duplicates(count: int) -> None:
    assert group_duplicates(draw(3)[:count]).tolist() == list(range(count))


@given(st.permutations(range(6)))
@settings(max_examples=10, deadline=None)
def test_the_order_of_the_images_does_not_matter(order: list[int]) -> None:
    images = draw(4, size=64)
    images = np.concatenate([images, images[1:2, :, ::-1], images[3:]])
    groups = group_duplicates(images[order])
    same = {tuple(sorted(order[i] for i in np.flatnonzero(groups == group))) for group in set(groups.tolist())}
    assert same == {(0,), (1, 4), (2,), (3, 5)}


def test_the_block_size_does_not_change_the_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    images = draw(12, size=64)
    images = np.concatenate([images, images[[2, 7, 11]]])
    expected = similar_pairs(images)
    monkeypatch.setattr("pneumo.data.duplicates._BLOCK", 4)
    monkeypatch.setattr("pneumo.data.duplicates._WIDTH", 5)
    assert similar_pairs(images) == expected == [(2, 12), (7, 13), (11, 14)]
