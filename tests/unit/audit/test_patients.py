from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pneumo.audit.patients import weigh_patients
from pneumo.audit.properties import Picture, Pictures
from pneumo.audit.tree import File

SIDE = 8


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pneumo.audit.patients._SIDE", SIDE)  # components of small thumbnails are quickly found


def draw(random: np.random.Generator, films: list[tuple[str, str, int]]) -> Pictures:
    """Draw films, given as split, patient's name and which child it is: those of one child resemble each other."""
    looks: dict[int, np.ndarray] = {}
    thumbnails = []
    for _, _, child in films:
        look = looks.setdefault(child, random.normal(0, 1, (SIDE, SIDE)))
        thumbnails.append(128 + 25 * (look + random.normal(0, 1, (SIDE, SIDE))))
    files = [File(f"{split}/A/{i}.png", split, 0, "", name, 1) for i, (split, name, _) in enumerate(films)]
    picture = Picture(SIDE, SIDE, "L", "PNG", "")
    return Pictures(
        tuple(files), (picture,) * len(files), np.array(thumbnails).clip(0, 255).astype(np.uint8), unreadable=()
    )


def flagged(other_child: Callable[[int], int], trials: int) -> int:
    """Count how often six names with four films in either split are taken for the same children."""
    count = 0
    for seed in range(trials):
        films = [
            (split, f"alone-{split}-{i}", 1000 * (1 + (split == "test")) + i)
            for split in ("test", "train")
            for i in range(200)
        ]
        films += [("test", f"shared-{i}", i) for i in range(6) for _ in range(4)]
        films += [("train", f"shared-{i}", other_child(i)) for i in range(6) for _ in range(4)]
        pictures = draw(np.random.default_rng(seed), films)
        patients = weigh_patients(pictures, np.arange(len(films)))
        assert len(patients.shared) == 6
        count += patients.conclusion == "same"
    return count


def test_a_few_names_with_many_films_of_strangers_are_no_leak() -> None:
    # At 5 % each, 7 or more of 40 have a chance of 0.3 %. Strangers drawn film by film would flag 12.
    assert flagged(lambda name: 500 + name, 40) < 7


def test_a_few_names_of_the_same_children_are() -> None:
    assert flagged(lambda name: name, 5) == 5


def test_rounding_residues_of_equal_films_are_no_evidence() -> None:
    films = [(split, f"alone-{split}-{i}", 0) for split in ("test", "train") for i in range(30)]
    films += [(split, f"shared-{i}", 0) for split in ("test", "train") for i in range(12) for _ in range(3)]
    pictures = draw(np.random.default_rng(0), films)
    equal = replace(pictures, thumbnails=np.repeat(pictures.thumbnails[:1], len(films), axis=0))
    patients = weigh_patients(equal, np.arange(len(films)))
    assert (patients.within.excess, patients.across.excess) == (0, 0)
    assert (patients.share, patients.p_value, patients.conclusion) == (None, 1, "undecided")
