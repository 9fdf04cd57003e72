from typing import Any

import pytest
import torch
from torch import Tensor

from pneumo.data.augmentation import NUMBERS, Augmentation

NONE: dict[str, Any] = {"rotation": 0.0, "shift": 0.0, "zoom": 0.0, "flip": 0.0, "brightness": 0.0, "contrast": 0.0}


def images(count: int = 4, size: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 1, size, size), dtype=torch.uint8, generator=generator)


def numbers(count: int, **places: float) -> Tensor:
    row = torch.tensor([places.get(name, 0.0) for name in NUMBERS])
    return row.expand(count, -1)


def enlarge(image: Tensor) -> Tensor:
    """Double height and width; beyond the edges it is black."""
    framed = torch.nn.functional.pad(image.float(), (1, 1, 1, 1))
    large = torch.nn.functional.interpolate(framed, scale_factor=2, mode="bilinear")
    return large[..., 2:-2, 2:-2].round().to(torch.uint8)


def test_nothing_is_nothing() -> None:
    augmentation = Augmentation(**NONE)
    assert not augmentation.active
    assert torch.equal(augmentation(images(), augmentation.draw(4, 0)), images())


@pytest.mark.parametrize(
    ("limits", "places", "expected"),
    [
        ({"rotation": 90}, {"angle": 1}, lambda x: x.rot90(1, (2, 3))),
        ({"rotation": 180}, {"angle": 1}, lambda x: x.flip(2, 3)),
        ({"flip": 1}, {"side": 0.5}, lambda x: x.flip(3)),
        ({"flip": 0.5}, {"side": -0.1}, lambda x: x.flip(3)),
        ({"flip": 0.5}, {"side": 0.1}, lambda x: x),
        ({"shift": 0.25}, {"right": 1}, lambda x: torch.nn.functional.pad(x[..., 4:], (0, 4))),
        ({"shift": 0.25}, {"down": -1}, lambda x: torch.nn.functional.pad(x[..., :-4, :], (0, 0, 4, 0))),
        ({"crop": 0.5}, {"cut": 1, "cut_right": 1, "cut_down": -1}, lambda x: enlarge(x)[..., :16, 16:]),
        ({"brightness": 0.2}, {"light": 1}, lambda x: (x.float() + 51).clamp(0, 255).to(torch.uint8)),
    ],
)
def test_each_part_does_what_it_says(limits: dict[str, float], places: dict[str, float], expected: object) -> None:
    augmentation = Augmentation(**{**NONE, **limits})
    assert augmentation.active
    assert callable(expected)
    assert torch.equal(augmentation(images(), numbers(4, **places)), expected(images()))


@pytest.mark.parametrize(("number", "size"), [(1, (16, 32)), (-1, (32, 16)), (0, (16, 16))])
def test_stretched_images_are_wider_or_higher_and_lose_what_is_beyond(number: int, size: tuple[int, int]) -> None:
    stretched = Augmentation(**NONE, stretch=1.0, share=0.01)(images(), numbers(4, stretch=number, spared=1))
    height, width = size
    expected = torch.nn.functional.interpolate(images().float(), size=size, mode="bilinear")
    expected = expected[..., (height - 16) // 2 : (height + 16) // 2, (width - 16) // 2 : (width + 16) // 2]
    torch.testing.assert_close(stretched.float(), expected, atol=0.51, rtol=0)


def test_zoom_and_contrast_change_size_and_spread() -> None:
    disc = torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    disc[..., 24:40, 24:40] = 200
    larger = Augmentation(**{**NONE, "zoom": 0.5})(disc, numbers(1, size=1))
    assert (larger > 100).sum() == 24 * 24
    flat = Augmentation(**{**NONE, "contrast": 0.5})(images(), numbers(4, range=-1)).float()
    assert flat.std().item() == pytest.approx(images().float().std().item() / 2, rel=0.01)
    assert flat.mean().item() == pytest.approx(images().float().mean().item(), abs=0.5)


def test_half_of_the_images_are_spared_by_each_degradation() -> None:
    films = images(400, 32)
    for name, limit in (("blur", 2.0), ("resample", 0.6), ("jpeg", 20)):
        augmentation = Augmentation(**{**NONE, name: limit})
        assert augmentation.active
        changed = augmentation(films, augmentation.draw(400, seed=0))
        spared = (changed == films).flatten(1).all(1).float().mean().item()
        assert spared == pytest.approx(0.5, abs=0.1)
    far = numbers(400, blur=1, resolution=1, quality=1)
    for name, limit, check in (("blur", 1.0, 0.6), ("resample", 0.9, 0.6), ("jpeg", 5, 1.0)):
        worst = Augmentation(**{**NONE, name: limit})(films, far).float()
        assert worst.std().item() < check * films.float().std().item()


def test_a_share_of_the_images_is_left_as_it_is() -> None:
    films = images(400, 32)
    limits = {"rotation": 5, "shift": 0.1, "zoom": 0.1, "brightness": 0.1, "contrast": 0.1, "blur": 1.0, "jpeg": 40}
    augmentation = Augmentation(**{**NONE, **limits, "flip": 0.5}, share=0.3)
    changed = augmentation(films, augmentation.draw(400, seed=0))
    as_it_was, mirrored = ((changed == other).flatten(1).all(1) for other in (films, films.flip(3)))
    assert as_it_was.float().mean().item() == pytest.approx(0.35, abs=0.08)
    assert mirrored.float().mean().item() == pytest.approx(0.35, abs=0.08)
    assert not Augmentation(**NONE, share=0.3).active


def test_an_image_gets_its_numbers_whatever_batch_it_is_in() -> None:
    augmentation = Augmentation(rotation=10, shift=0.1, zoom=0.1, flip=0.5, brightness=0.1, contrast=0.1)
    drawn = augmentation.draw(8, seed=3)
    assert torch.equal(drawn, augmentation.draw(8, seed=3))
    assert not torch.equal(drawn, augmentation.draw(8, seed=4))
    whole = augmentation(images(8), drawn)
    order = torch.tensor([5, 0, 7])
    assert torch.equal(augmentation(images(8)[order], drawn[order]), whole[order])
    assert whole.dtype == torch.uint8
