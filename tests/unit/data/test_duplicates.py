import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from pneumo.data import duplicates
from pneumo.data.duplicates import SIDE, group_duplicates
from pneumo.data.phantoms import draw_radiograph


def film(seed: int) -> Image.Image:
    """A film of a patient of its own."""
    return Image.fromarray(draw_radiograph(np.random.default_rng(seed), np.random.default_rng(seed + 1_000), "none"))


def thumbnails(films: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(film.resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for film in films])


def recompressed(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


COPIES = {
    "exact": lambda image: image,
    "quality 30": lambda image: recompressed(image, 30),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "twice the size": lambda image: image.resize((image.width * 2, image.height * 2)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.9),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_found_and_nothing_else(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    films = [film(i) for i in range(30)]
    copied = [3, 17, 29]
    images = thumbnails([*films, *(COPIES[kind](films[i]) for i in copied)])
    expected = [*range(30), *copied]
    assert group_duplicates(images).tolist() == expected
    monkeypatch.setattr(duplicates, "_CELLS", 100)  # blocks of a few rows
    assert group_duplicates(images).tolist() == expected


def test_other_films_of_a_patient_are_no_duplicates() -> None:
    patient = [
        Image.fromarray(draw_radiograph(np.random.default_rng(5), np.random.default_rng(i), "none")) for i in range(6)
    ]
    assert group_duplicates(thumbnails(patient)).tolist() == list(range(6))


def test_flat_images_are_alike_only_if_they_are_the_same() -> None:
    images = np.stack([np.full((SIDE, SIDE), grey, np.uint8) for grey in (0, 0, 255)])
    assert group_duplicates(images).tolist() == [0, 0, 2]
    assert group_duplicates(images[:0]).tolist() == []
