"""Splits: which radiographs a network learns from, is chosen by, and is tested on."""

import logging
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import islice

from sklearn.model_selection import StratifiedGroupKFold

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
    # 0.1 is one of 10 folds, 0.15 is 3 of 20 where there are so many patients.
    share = Fraction(fraction).limit_denominator(min(max(20, needed), most))
    folder = StratifiedGroupKFold(n_splits=share.denominator, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class and subtype with fewer images than folds is spread as far as it goes.
        warnings.filterwarnings("ignore", message="The least populated class")
        folds = islice(folder.split(pool, strata, patients), share.numerator)
        held_out = {i for _, fold in folds for i in fold.tolist()}
    train = [replace(image, split="train") for i, image in enumerate(pool) if i not in held_out]
    return train, [replace(image, split="val") for i, image in enumerate(pool) if i in held_out]
