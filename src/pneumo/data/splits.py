"""Splits: which radiographs a network learns from, is chosen by, and is tested on."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pneumo.data.index import Radiograph
from pneumo.errors import ConfigError, DataError

_log = logging.getLogger(__name__)

Splits = dict[str, list[Radiograph]]


def split_radiographs(radiographs: Sequence[Radiograph], split: str, val_fraction: float, seed: int) -> Splits:
    """Divide an index into train, val and test; test is always the official one.

    Args:
        radiographs: The whole index.
        split: `official` takes the folders as they are; where there is no val folder, it does what `patient` does.
            `patient` pools train and val and holds out a share of their patients for validation, stratified by class
            and subtype, so that no patient is on both sides.
        val_fraction: The share that is held out, above 0, at most 0.5.
        seed: Of the choice of patients.

    Raises:
        ConfigError: Unknown split.
        DataError: Too few patients.
    """
    folders = {
        name: [radiograph for radiograph in radiographs if radiograph.split == name]
        for name in ("train", "val", "test")
    }
    if split == "official" and folders["val"]:
        return folders
    if split == "official":
        _log.warning(
            "The data has no val folder: %g %% of the training patients are held out for validation, as with "
            "data.split=patient.",
            100 * val_fraction,
        )
    train, val = _hold_out_patients(folders["train"] + folders["val"], val_fraction, seed)
    return {"train": train, "val": val, "test": folders["test"]}


def check_split(split: str) -> None:
    """Raise a ConfigError unless `split` is one of the splits that there are."""
    if split not in ("official", "patient"):
        raise ConfigError(
            f"data.split={split} is not a split: take data.split=official (the folders as they are) or "
            "data.split=patient (a share of the training patients is held out for validation)."
        )


def _hold_out_patients(pool: list[Radiograph], fraction: float, seed: int) -> tuple[list[Radiograph], list[Radiograph]]:
    strata = [f"{radiograph.label} {radiograph.subtype}" for radiograph in pool]
    patients = [radiograph.patient for radiograph in pool]
    needed, most = round(1 / fraction), min(len(set(patients)), max(Counter(strata).values(), default=0))
    if most < needed:
        raise DataError(
            f"{len(set(patients))} training patients with {len(pool)} images are too few to hold out {fraction:g} of "
            f"them: that takes {needed} patients, and as many images of a class and subtype. Choose a larger "
            "data.val_fraction, at most 0.5, or add patients."
        )
    held_out = _choose_patients(patients, strata, fraction, seed)
    for side in (True, False):
        labels = {image.label for image, held in zip(pool, held_out, strict=True) if held is side}
        if labels != {image.label for image in pool}:
            raise DataError(
                f"Holding out {fraction:g} of the training patients leaves no image of one class on one side, since it "
                "has too few patients: choose a larger data.val_fraction, at most 0.5, or add patients."
            )
    train = [replace(image, split="train") for image, held in zip(pool, held_out, strict=True) if not held]
    return train, [replace(image, split="val") for image, held in zip(pool, held_out, strict=True) if held]


def _choose_patients(patients: Sequence[str], strata: Sequence[str], fraction: float, seed: int) -> list[bool]:
    """Hold out patients at random until they have the wanted share of each stratum's images; tell for each image.

    scikit-learn's StratifiedGroupKFold does the like, and takes two minutes for 500,000 patients.
    """
    patient, stratum_of_image = _number(patients), _number(strata)
    images = np.bincount(patient)
    stratum = np.full(len(images), len(strata))
    np.minimum.at(stratum, patient, stratum_of_image)  # a patient with images in several counts in the first
    wanted = fraction * np.bincount(stratum, weights=images)
    have = np.zeros_like(wanted)
    held_out = np.zeros(len(images), dtype=bool)
    for one in np.random.default_rng(seed).permutation(len(images)):
        if have[stratum[one]] + images[one] / 2 <= wanted[stratum[one]]:  # one that would go too far is passed over
            have[stratum[one]] += images[one]
            held_out[one] = True
    chosen: list[bool] = held_out[patient].tolist()
    return chosen


def _number(names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Number names in the order in which they first appear."""
    known: dict[str, int] = {}
    return np.array([known.setdefault(name, len(known)) for name in names])
