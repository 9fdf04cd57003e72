"""Patient-level train/validation/test splits."""

import logging
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from pneumo.data.folder_tree import SPLITS
from pneumo.data.index import Radiograph
from pneumo.errors import ConfigError, DataError

_log = logging.getLogger(__name__)
_WAYS = ("official", "patient", "kfold")
Splits = dict[str, list[Radiograph]]
Groups = npt.NDArray[np.int64]


def split_radiographs(
    radiographs: Sequence[Radiograph],
    split: str,
    val_fraction: float,
    seed: int,
    folds: int = 5,
    fold: int = 0,
    twins: Sequence[int] | None = None,
) -> Splits:
    """Split an index into train, val and test; test is always the official one.

    `official` takes the folders as they are. `patient` pools train and val and holds out a fraction of their patients
    for validation; `kfold` divides these patients into `folds` parts and holds out number `fold`. Both stratify by
    class and subtype, and no patient, nor any near-duplicate image, is on both sides. `twins` has each radiograph's
    group of near duplicates; None: there are none.
    """
    folders = {name: [image for image in radiographs if image.split == name] for name in SPLITS}
    if split == "official":
        return folders
    pool = folders["train"] + folders["val"]
    patients = _link(pool, radiographs, twins)
    strata = [f"{image.label} {image.subtype}" for image in pool]
    if split == "kfold":
        held_out = _choose_fold(patients, strata, folds, fold, seed)
    else:
        held_out = _hold_out(patients, strata, val_fraction, seed)
    for name, side in (("train", False), ("val", True)):
        folders[name] = [replace(image, split=name) for image, held in zip(pool, held_out, strict=True) if held == side]
        if {image.label for image in folders[name]} != {image.label for image in pool}:
            raise DataError(
                "Holding out training patients leaves no image of one class on one side, since it has too few "
                f"patients: choose another {'data.folds=' if split == 'kfold' else 'data.val_fraction='}, or add "
                "patients."
            )
    return folders


def check_split(split: str, folds: int, fold: int) -> None:
    """Raise a ConfigError for an unknown split, or a fold that it does not have."""
    if split not in _WAYS:
        raise ConfigError(
            f"data.split={split} is not a split: take data.split=official (the folders as they are), "
            "data.split=patient (a share of the training patients is held out for validation) or data.split=kfold "
            "(one of data.folds parts of them, data.fold)."
        )
    if split == "kfold" and not 0 <= fold < folds:
        raise ConfigError(
            f"data.fold={fold} must be a whole number from 0 to {folds - 1}, since data.folds={folds}; a sweep over "
            f"all of them is data.fold={','.join(map(str, range(folds)))}."
        )


def join_groups(first: Sequence[str] | Sequence[int], second: Sequence[str] | Sequence[int]) -> Groups:
    """Number the groups of things that have either name in common, directly or by way of others, (N,)."""
    one, other, size = _number(first), _number(second), len(first)
    links = coo_array((np.ones(size), (one, other + size)), shape=(2 * size, 2 * size))
    _, group = connected_components(links, directed=False)
    return _number(group[one].tolist())


def _link(pool: Sequence[Radiograph], radiographs: Sequence[Radiograph], twins: Sequence[int] | None) -> Groups:
    """Number the groups of images that must stay together: of one patient, or near duplicates, or linked by others."""
    numbers = range(len(radiographs)) if twins is None else twins
    twin_of = {image.path: number for image, number in zip(radiographs, numbers, strict=True)}
    tested = {twin_of[image.path] for image in radiographs if image.split == "test"}
    if copies := [image.path for image in pool if twin_of[image.path] in tested]:
        text = "%d training images are near duplicates of test images, as %s is, so that the test will flatter: see "
        _log.warning(text + "`pneumo audit`, and delete the copies.", len(copies), copies[0])
    return join_groups([image.patient for image in pool], [twin_of[image.path] for image in pool])


def _hold_out(patients: Groups, strata: Sequence[str], fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    images, count = len(patients), len(set(patients.tolist()))
    needed, most = round(1 / fraction), min(count, max(Counter(strata).values(), default=0))
    if most < needed:
        raise DataError(
            f"{count} training patients with {images} images are too few to hold out {fraction:g} of "
            f"them: that takes {needed} patients, and as many images of a class and subtype. Choose a larger "
            "data.val_fraction, at most 0.5, or add patients."
        )
    return _choose_patients(patients, strata, fraction, seed)


def _choose_fold(patients: Groups, strata: Sequence[str], folds: int, fold: int, seed: int) -> npt.NDArray[np.bool_]:
    count = len(set(patients.tolist()))
    if min(count, max(Counter(strata).values(), default=0)) < folds:
        raise DataError(
            f"{count} training patients with {len(patients)} images are too few for data.folds={folds}, each of which "
            "needs a patient, and an image of a class and subtype. Choose fewer folds, or add patients."
        )
    with warnings.catch_warnings():
        # A stratum of fewer images than folds is divided as far as it goes.
        warnings.simplefilter("ignore", UserWarning)
        parts = list(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(strata, strata, patients))
    return np.isin(np.arange(len(patients)), parts[fold][1])


def _choose_patients(patient: Groups, strata: Sequence[str], fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    """Hold out patients at random until they have the wanted fraction of each stratum's images; mark their images.

    scikit-learn's StratifiedGroupKFold does the like, and takes two minutes for 500,000 patients.
    """
    stratum = _number(strata)
    images = np.zeros((patient.max() + 1, stratum.max() + 1), dtype=np.int64)  # of each patient in each stratum
    np.add.at(images, (patient, stratum), 1)
    wanted = fraction * images.sum(0)
    have = np.zeros_like(wanted)
    held_out = np.zeros(len(images), dtype=bool)
    for one in np.random.default_rng(seed).permutation(len(images)):
        own = images[one]
        if np.all((have + own / 2 <= wanted) | (own == 0)):  # one that would go too far is passed over
            have += own
            held_out[one] = True
    return held_out[patient]


def _number(names: Sequence[str] | Sequence[int]) -> Groups:
    """Number names in the order in which they first appear."""
    known: dict[str | int, int] = {}
    return np.array([known.setdefault(name, len(known)) for name in names])
