from typing import Any

import pytest
import torch
from torch import Tensor

from pneumo.data.augmentation import NUMBERS, Augmentation

NONE: dict[str, Any] = {"rotation": 0.0, "shift": 0.0, "zoom": 0.0, "flip": 0.0, "brightness": 0.0, "contrast": 0.0}


def images(count: int = 4, size: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 1, size, size), dtype=torch.uint8, generator=generator)


def numbers(count: int, **values: float) -> Tensor:
    row = torch.tensor([values.get(name, 0.0) for name in NUMBERS])
    return row.expand(count, -1)


def enlarge(image: Tensor) -> Tensor:
    """Double height and width, with black beyond the edges."""
    framed = torch.nn.functional.pad(image.float(), (1, 1, 1, 1))
    large = torch.nn.functional.interpolate(framed, scale_factor=2, mode="bilinear")
    return large[..., 2:-2, 2:-2].round().to(torch.uint8)


def fill(image: Tensor, rows: slice, value: int) -> Tensor:
    filled = image.clone()
    filled[..., rows, :] = value
    return filled


def test_limits_of_zero_change_nothing() -> None:
    augmentation = Augmentation(**NONE)
    assert not augmentation.active
    assert torch.equal(augmentation(images(), augmentation.draw(4, 0)), images())


@pytest.mark.parametrize(
    ("limits", "values", "expected"),
    [
        ({"rotation": 90}, {"rotation": 1}, lambda x: x.rot90(1, (2, 3))),
        ({"rotation": 180}, {"rotation": 1}, lambda x: x.flip(2, 3)),
        ({"flip": 1}, {"flip": 0.5}, lambda x: x.flip(3)),
        ({"flip": 0.5}, {"flip": -0.1}, lambda x: x.flip(3)),
        ({"flip": 0.5}, {"flip": 0.1}, lambda x: x),
        ({"shift": 0.25}, {"shift_x": 1}, lambda x: torch.nn.functional.pad(x[..., 4:], (0, 4))),
        ({"shift": 0.25}, {"shift_y": -1}, lambda x: torch.nn.functional.pad(x[..., :-4, :], (0, 0, 4, 0))),
        ({"crop": 0.5}, {"crop": 1, "crop_x": 1, "crop_y": -1}, lambda x: enlarge(x)[..., :16, 16:]),
        ({"gamma": 1}, {"gamma": 1}, lambda x: ((x / 255) ** 2 * 255).round().to(torch.uint8)),
        ({"gamma": 1}, {"gamma": -1}, lambda x: ((x / 255).sqrt() * 255).round().to(torch.uint8)),
        ({"border": 0.25}, {"border_left": 1}, lambda x: torch.nn.functional.pad(x[..., 4:], (4, 0))),
        ({"border": 0.5}, {"border_bottom": 0.5}, lambda x: torch.nn.functional.pad(x[..., :12, :], (0, 0, 0, 4))),
        ({"border": 0.5}, {"border_top": 1, "border_grey": 1}, lambda x: fill(x, slice(0, 8), 255)),
        ({"brightness": 0.2}, {"brightness": 1}, lambda x: (x.float() + 51).clamp(0, 255).to(torch.uint8)),
    ],
)
def test_each_change_gives_the_expected_image(
    limits: dict[str, float], values: dict[str, float], expected: object
) -> None:
    augmentation = Augmentation(**{**NONE, **limits})
    assert augmentation.active
    assert callable(expected)
    assert torch.equal(augmentation(images(), numbers(4, **values)), expected(images()))


@pytest.mark.parametrize(("number", "size"), [(1, (16, 32)), (-1, (32, 16)), (0, (16, 16))])
def test_stretched_images_are_wider_or_higher_and_cropped(number: int, size: tuple[int, int]) -> None:
    stretched = Augmentation(**NONE, stretch=1.0, share=0.01)(images(), numbers(4, stretch=number, skip=1))
    height, width = size
    expected = torch.nn.functional.interpolate(images().float(), size=size, mode="bilinear")
    expected = expected[..., (height - 16) // 2 : (height + 16) // 2, (width - 16) // 2 : (width + 16) // 2]
    torch.testing.assert_close(stretched.float(), expected, atol=0.51, rtol=0)


def test_zoom_and_contrast_change_size_and_spread() -> None:
    disc = torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    disc[..., 24:40, 24:40] = 200
    larger = Augmentation(**{**NONE, "zoom": 0.5})(disc, numbers(1, zoom=1))
    assert (larger > 100).sum() == 24 * 24
    flat = Augmentation(**{**NONE, "contrast": 0.5})(images(), numbers(4, contrast=-1)).float()
    assert flat.std().item() == pytest.approx(images().float().std().item() / 2, rel=0.01)
    assert flat.mean().item() == pytest.approx(images().float().mean().item(), abs=0.5)


def test_each_degradation_leaves_half_of_the_images_unchanged() -> None:
    originals = images(400, 32)
    for name, limit in (("blur", 2.0), ("resample", 0.6), ("jpeg", 20), ("noise", 0.2)):
        augmentation = Augmentation(**{**NONE, name: limit})
        assert augmentation.active
        changed = augmentation(originals, augmentation.draw(400, seed=0))
        unchanged = (changed == originals).flatten(1).all(1).float().mean().item()
        assert unchanged == pytest.approx(0.5, abs=0.1)
    maximum = numbers(400, blur=1, resample=1, jpeg=1)
    for name, limit, fraction in (("blur", 1.0, 0.6), ("resample", 0.9, 0.6), ("jpeg", 5, 1.0)):
        worst = Augmentation(**{**NONE, name: limit})(originals, maximum).float()
        assert worst.std().item() < fraction * originals.float().std().item()


def test_a_fraction_of_the_images_is_at_most_mirrored() -> None:
    originals = images(400, 32)
    limits = {"rotation": 5, "shift": 0.1, "zoom": 0.1, "brightness": 0.1, "contrast": 0.1, "blur": 1.0, "jpeg": 40}
    augmentation = Augmentation(**{**NONE, **limits, "flip": 0.5}, share=0.3)
    changed = augmentation(originals, augmentation.draw(400, seed=0))
    unchanged, mirrored = ((changed == other).flatten(1).all(1) for other in (originals, originals.flip(3)))
    assert unchanged.float().mean().item() == pytest.approx(0.35, abs=0.08)
    assert mirrored.float().mean().item() == pytest.approx(0.35, abs=0.08)
    assert not Augmentation(**NONE, share=0.3).active


def test_the_numbers_of_an_image_do_not_depend_on_the_batch() -> None:
    augmentation = Augmentation(rotation=10, shift=0.1, zoom=0.1, flip=0.5, brightness=0.1, contrast=0.1)
    drawn = augmentation.draw(8, seed=3)
    assert torch.equal(drawn, augmentation.draw(8, seed=3))
    assert not torch.equal(drawn, augmentation.draw(8, seed=4))
    whole = augmentation(images(8), drawn)
    order = torch.tensor([5, 0, 7])
    assert torch.equal(augmentation(images(8)[order], drawn[order]), whole[order])
    assert whole.dtype == torch.uint8


def test_added_numbers_leave_those_of_earlier_versions_unchanged() -> None:
    expected = torch.rand(4, 15, generator=torch.Generator().manual_seed(7)) * 2 - 1
    assert torch.equal(Augmentation.draw(4, 7)[:, :15], expected)
    assert len(NUMBERS) == len(set(NUMBERS)) > 15


def test_noise_has_the_drawn_deviation_and_differs_between_images() -> None:
    grey = torch.full((2, 1, 64, 64), 64, dtype=torch.uint8)
    drawn = torch.cat([numbers(1, noise=0.5, noise_y=0.3), numbers(1, noise=0.5, noise_kind=1)])
    electronic, quantum = Augmentation(**NONE, noise=0.1)(grey, drawn).float() - 64
    assert electronic.std().item() == pytest.approx(12.75, rel=0.1)
    assert quantum.std().item() == pytest.approx(12.75 * (64 / 255) ** 0.5, rel=0.1)
    assert abs(torch.corrcoef(torch.stack((electronic.flatten(), quantum.flatten())))[0, 1].item()) < 0.1
