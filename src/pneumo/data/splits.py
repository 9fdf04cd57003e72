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

from pneumo.data.folder_tree import SPLITS
from pneumo.data.group_folds import GroupFolds
from pneumo.data.index import Radiograph
from pneumo.errors import ConfigError, DataError

_log = logging.getLogger(__name__)
METHODS = ("official", "patient", "kfold")  # of folder trees
SITE = "site"  # method of tables: leave one site out
_TEST_SEED = 0  # the test images are the same with all seeds, so that runs can be compared
Splits = dict[str, list[Radiograph]]
_MAX_SITES = 20  # in a message
Groups = npt.NDArray[np.int64]


def split_radiographs(
    radiographs: Sequence[Radiograph],
    split: str,
    val_fraction: float,
    seed: int,
    folds: int = 5,
    fold: int = 0,
    duplicate_groups: Sequence[int] | None = None,
) -> Splits:
    """Split radiographs into train, val and test; the test split is always the official one.

    `official` uses the folders as they are. `patient` pools train and val and holds out a fraction of the patients for
    validation. `kfold` divides the pooled patients into `folds` folds and holds out number `fold`. Both stratify by
    class and subtype and never separate images of one patient or near-duplicates.

    Args:
        radiographs: All radiographs of the data set.
        split: Name of the method.
        val_fraction: Fraction of images to hold out with `patient`, by whole patients.
        seed: Seed of the random split.
        folds: Number of folds with `kfold`.
        fold: Index of the fold to hold out with `kfold`.
        duplicate_groups: Group of near-duplicates of each radiograph, (N,); None if not searched.

    Raises:
        DataError: There are too few patients for the requested split.
    """
    folders = {name: [image for image in radiographs if image.split == name] for name in SPLITS}
    if split == "official":
        return folders
    pool = folders["train"] + folders["val"]
    patients = _group_images(pool, radiographs, duplicate_groups)
    strata = _strata(pool)
    if split == "kfold":
        held_out = _choose_fold(patients, strata, folds, fold, seed)
    else:
        held_out = _hold_out(patients, strata, val_fraction, seed, "data.val_fraction")
    for name, wanted in (("train", False), ("val", True)):
        folders[name] = [
            replace(image, split=name) for image, held in zip(pool, held_out, strict=True) if held == wanted
        ]
        if {image.label for image in folders[name]} != {image.label for image in pool}:
            raise DataError(
                f"One class has too few patients: holding some of them out leaves no image of it in {name}. Set "
                f"another {'data.folds' if split == 'kfold' else 'data.val_fraction'}, or add patients."
            )
    return folders


def hold_out_test(
    radiographs: Sequence[Radiograph], fraction: float, duplicate_groups: Sequence[int] | None = None
) -> list[Radiograph]:
    """Assign a fraction of the patients to test and all others to train; the test images do not depend on a seed.

    Raises:
        DataError: There are too few patients.
    """
    groups = range(len(radiographs)) if duplicate_groups is None else duplicate_groups
    patients = join_groups([image.patient for image in radiographs], list(groups))
    held_out = _hold_out(patients, _strata(radiographs), fraction, _TEST_SEED, "data.test_fraction")
    return _assign(radiographs, held_out.tolist())


def hold_out_site(radiographs: Sequence[Radiograph], site: str) -> list[Radiograph]:
    """Assign all images of a site to test and all others to train.

    Raises:
        DataError: An image has no site, all images are of one site, or none is of the given one.
    """
    if without := [image.path for image in radiographs if not image.site]:
        raise DataError(
            f"data.split={SITE} requires a site for each image, but {len(without):,} of {len(radiographs):,} have "
            f"none, for example {without[0]}. Fill the column site of the table, or use data.split=patient."
        )
    counts = Counter(image.site for image in radiographs)
    listed = ", ".join(f"{name} ({count:,} images)" for name, count in sorted(counts.items())[:_MAX_SITES])
    if len(counts) == 1:
        raise DataError(
            f"data.split={SITE} requires at least two sites, but all {len(radiographs):,} images are of one: {listed}. "
            "Use data.split=patient."
        )
    if site not in counts:
        more = ", ..." if len(counts) > _MAX_SITES else ""
        raise DataError(
            f"data.site={site} is not a site of the table, which has {listed}{more}. Use one of them, or "
            f"data.site=A,B,C in sweep.py -m to leave each out in turn."
        )
    return _assign(radiographs, [image.site == site for image in radiographs])


def report_shared_patients(splits: Splits) -> None:
    """Log a warning if training or validation images have patients of test images."""
    tested = {image.patient for image in splits["test"]}
    shared = [image.path for image in (*splits["train"], *splits["val"]) if image.patient in tested]
    if shared:
        text = "%d training and validation images, such as %s, have patients of test images. Test metrics are "
        text += "optimistic if these are the same patients, and not if each site numbers its own patients."
        _log.warning(text, len(shared), shared[0])


def check_split(split: str, folds: int, fold: int, methods: Sequence[str] = METHODS) -> None:
    """Raise a ConfigError for a split that is not one of `methods`, or a fold out of range."""
    if split not in methods:
        unknown = "requires a table with the column site (data=table)" if split == SITE else "is unknown"
        leave_out = ", data.split=site (test on the site data.site)" if SITE in methods else ""
        raise ConfigError(
            f"data.split={split} {unknown}. Use data.split=official (the folders as they are, or the column split of a "
            "table), data.split=patient (hold out a fraction of the training patients for validation)"
            f"{leave_out} or data.split=kfold (hold out fold data.fold of data.folds)."
        )
    if split == "kfold" and not 0 <= fold < folds:
        raise ConfigError(
            f"data.fold={fold} is out of range: with data.folds={folds} it must be an integer from 0 to {folds - 1}. "
            f"Use data.fold={','.join(map(str, range(folds)))} to sweep over all folds."
        )


def join_groups(first: Sequence[str] | Sequence[int], second: Sequence[str] | Sequence[int]) -> Groups:
    """Number the groups of items that share one of two names, directly or through other items, (N,)."""
    one, other, size = _encode(first), _encode(second), len(first)
    links = coo_array((np.ones(size), (one, other + size)), shape=(2 * size, 2 * size))
    _, group = connected_components(links, directed=False)
    return _encode(group[one].tolist())


def _group_images(
    pool: Sequence[Radiograph], radiographs: Sequence[Radiograph], duplicate_groups: Sequence[int] | None
) -> Groups:
    """Number the groups of images that must stay together: images of one patient and near-duplicates."""
    groups = range(len(radiographs)) if duplicate_groups is None else duplicate_groups
    group_of = {image.path: group for image, group in zip(radiographs, groups, strict=True)}
    tested = {group_of[image.path] for image in radiographs if image.split == "test"}
    if copies := [image.path for image in pool if group_of[image.path] in tested]:
        text = "%d training images, such as %s, are near-duplicates of test images, so test metrics are optimistic. "
        _log.warning(text + "Run `pneumo audit` to list the copies, and delete them.", len(copies), copies[0])
    return join_groups([image.patient for image in pool], [group_of[image.path] for image in pool])


def _strata(radiographs: Sequence[Radiograph]) -> list[str]:
    return [f"{image.label} {image.subtype}" for image in radiographs]


def _assign(radiographs: Sequence[Radiograph], tested: Sequence[bool]) -> list[Radiograph]:
    return [replace(image, split="test" if test else "train") for image, test in zip(radiographs, tested, strict=True)]


def _hold_out(
    patients: Groups, strata: Sequence[str], fraction: float, seed: int, setting: str
) -> npt.NDArray[np.bool_]:
    if reason := _too_few(patients, strata, round(1 / fraction), f"{setting}={fraction:g}"):
        raise DataError(f"{reason}. Use a larger {setting}, at most 0.5, or add patients.")
    return _sample_patients(patients, strata, fraction, seed)


def _choose_fold(patients: Groups, strata: Sequence[str], folds: int, fold: int, seed: int) -> npt.NDArray[np.bool_]:
    if reason := _too_few(patients, strata, folds, f"data.folds={folds}"):
        raise DataError(f"{reason}. Use fewer folds, or add patients.")
    with warnings.catch_warnings():
        # scikit-learn warns about strata with fewer images than folds, which it divides as well as possible.
        warnings.simplefilter("ignore", UserWarning)
        splits = list(GroupFolds(folds, shuffle=True, random_state=seed).split(strata, strata, patients))
    return np.isin(np.arange(len(patients)), splits[fold][1])


def _too_few(patients: Groups, strata: Sequence[str], needed: int, setting: str) -> str:
    """Return why there are too few patients or images of one stratum for a setting; empty if there are enough."""
    count, largest = len(set(patients.tolist())), max(Counter(strata).values(), default=0)
    if min(count, largest) >= needed:
        return ""
    return (
        f"{count} training patients with {len(patients)} images, at most {largest} of one class and subtype, are too "
        f"few for {setting}: it needs {needed} patients and {needed} images of one class and subtype"
    )


def _sample_patients(patient: Groups, strata: Sequence[str], fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    """Hold out random patients until they have the given fraction of images of each stratum; return a mask, (N,).

    scikit-learn's StratifiedGroupKFold is not used, because it takes two minutes for 500,000 patients.
    """
    stratum = _encode(strata)
    images = np.zeros((patient.max() + 1, stratum.max() + 1), dtype=np.int64)  # per patient and stratum
    np.add.at(images, (patient, stratum), 1)
    wanted = fraction * images.sum(0)
    total = np.zeros_like(wanted)
    held_out = np.zeros(len(images), dtype=bool)
    for one in np.random.default_rng(seed).permutation(len(images)):
        own = images[one]
        if np.all((total + own / 2 <= wanted) | (own == 0)):  # skip patients that would exceed it
            total += own
            held_out[one] = True
    return held_out[patient]


def _encode(names: Sequence[str] | Sequence[int]) -> Groups:
    """Encode names as integers in order of first appearance."""
    codes: dict[str | int, int] = {}
    return np.array([codes.setdefault(name, len(codes)) for name in names])
