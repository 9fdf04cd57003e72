from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pneumo.audit.patients import compare_patients
from pneumo.audit.properties import ImageInfo, LoadedImages
from pneumo.data.image_tree import File

SIDE = 8


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    # Small thumbnails have few components, which are fast to compute.
    monkeypatch.setattr("pneumo.audit.patients._SIDE", SIDE)


def draw(random: np.random.Generator, specs: list[tuple[str, str, int]]) -> LoadedImages:
    """Draw an image for each (split, patient name, patient index); images of one patient resemble each other."""
    means: dict[int, np.ndarray] = {}
    thumbnails = []
    for _, _, patient in specs:
        mean = means.setdefault(patient, random.normal(0, 1, (SIDE, SIDE)))
        thumbnails.append(128 + 25 * (mean + random.normal(0, 1, (SIDE, SIDE))))
    files = [File(f"{split}/A/{i}.png", split, 0, "", name, 1) for i, (split, name, _) in enumerate(specs)]
    info = ImageInfo(SIDE, SIDE, "L", "PNG", "")
    return LoadedImages(
        tuple(files), (info,) * len(files), np.array(thumbnails).clip(0, 255).astype(np.uint8), unreadable=()
    )


def count_flagged(train_patient: Callable[[int], int], trials: int) -> int:
    """Count the trials in which six names with four images per split are concluded to denote the same patients."""
    count = 0
    for seed in range(trials):
        specs = [
            (split, f"alone-{split}-{i}", 1000 * (1 + (split == "test")) + i)
            for split in ("test", "train")
            for i in range(200)
        ]
        specs += [("test", f"shared-{i}", i) for i in range(6) for _ in range(4)]
        specs += [("train", f"shared-{i}", train_patient(i)) for i in range(6) for _ in range(4)]
        images = draw(np.random.default_rng(seed), specs)
        patients = compare_patients(images, np.arange(len(specs)))
        assert len(patients.shared) == 6
        count += patients.conclusion == "same"
    return count


def test_a_few_names_of_different_patients_with_many_images_are_not_flagged() -> None:
    # At a significance level of 5 %, 7 or more of 40 are flagged with a probability of 0.3 %. Drawing single images
    # would flag 12.
    assert count_flagged(lambda name: 500 + name, 40) < 7


def test_a_few_names_of_the_same_patients_are_flagged() -> None:
    assert count_flagged(lambda name: name, 5) == 5


def test_rounding_residues_of_equal_images_are_not_significant() -> None:
    specs = [(split, f"alone-{split}-{i}", 0) for split in ("test", "train") for i in range(30)]
    specs += [(split, f"shared-{i}", 0) for split in ("test", "train") for i in range(12) for _ in range(3)]
    images = draw(np.random.default_rng(0), specs)
    equal = replace(images, thumbnails=np.repeat(images.thumbnails[:1], len(specs), axis=0))
    patients = compare_patients(equal, np.arange(len(specs)))
    assert (patients.within.excess, patients.across.excess) == (0, 0)
    assert (patients.ratio, patients.p_value, patients.conclusion) == (None, 1, "undecided")
