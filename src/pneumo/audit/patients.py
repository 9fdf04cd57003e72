"""Similarity of images that share a patient name, compared with images that do not."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pneumo.audit.properties import LoadedImages
from pneumo.data.folder_tree import SPLITS
from pneumo.data.image_tree import UNSPLIT
from pneumo.metrics.intervals import ROUNDING_ERROR, zero_rounding_errors

Conclusion = Literal["same", "different", "undecided"]
Floats = NDArray[np.float64]
# AUROC of similarity measures that distinguish image pairs of one patient from pairs of different patients, on 5,856
# radiographs: whitened principal components 0.66 (with 40 to 100 of them), fine structure 0.62 aligned and 0.56 not.
_COMPONENTS = 60
MIN_NAMES = 10  # within and across splits, to conclude that shared names denote different patients
_ALPHA = 0.05  # significance level
_SIDE = 32  # side of the compared thumbnails in pixels
_MAX_PAIRS = 20  # per name and kind of pair
_DRAWS = 2_000  # random samples of the bootstrap and of the significance test


@dataclass(frozen=True)
class Similarity:
    """Similarity of images with the same patient name, minus that of different patients of the same class and split."""

    names: int  # number of names with such images
    pairs: int  # number of pairs of images compared
    # Mean over the names: cosine minus that of different patients. 0 is no excess similarity; None without names.
    excess: float | None
    low: float | None  # lower end of its 95 % interval, from a bootstrap over names; None for fewer than 2 names
    high: float | None  # upper end


@dataclass(frozen=True)
class Patients:
    """Comparison of images that share a patient name."""

    per_split: dict[str, int]  # number of names by split
    shared: tuple[str, ...]  # names in several splits, sorted
    shared_subtypes: int  # number of shared names with images of one class and subtype in several splits
    within: Similarity  # images of one name, split and subtype, without duplicates: the reference for one patient
    subtypes: Similarity  # images of one name and split, but different subtypes
    across: Similarity  # images of one name in different splits
    ratio: float | None  # excess across / excess within: 1 if shared names denote one patient, 0 if different patients
    ratio_high: float | None  # upper end of its 95 % interval
    p_value: float | None  # of the similarity across splits; null hypothesis: shared names denote different patients
    conclusion: Conclusion | None  # same, different or undecided; None without shared names


def compare_patients(images: LoadedImages, groups: NDArray[np.int64]) -> Patients:
    """Compare images that share a patient name with images of different patients.

    Args:
        images: N readable images.
        groups: The duplicate group of each image, shape (N,); pairs within a group are excluded.
    """
    members_by_name: dict[str, list[int]] = defaultdict(list)
    for index, file in enumerate(images.files):
        if file.patient is not None:
            members_by_name[file.patient].append(index)
    splits = {name: {images.files[i].split for i in members} for name, members in members_by_name.items()}
    kinds: dict[str, dict[str, list[tuple[int, int]]]] = {kind: {} for kind in ("within", "subtypes", "across")}
    for name, members in members_by_name.items():
        for i, j in combinations(members, 2):
            kind = _kind(images, i, j)
            if groups[i] != groups[j] and len(kinds[kind].get(name, ())) < _MAX_PAIRS:
                kinds[kind].setdefault(name, []).append((i, j))
    reference = _DifferentPatients(images, members_by_name)
    excess = {
        kind: zero_rounding_errors(np.array([reference.excess(pairs) for pairs in names.values()])).tolist()
        for kind, names in kinds.items()
    }
    similarities = {kind: _summarize(excess[kind], sum(map(len, names.values()))) for kind, names in kinds.items()}
    ratio, high = _ratio(excess["across"], excess["within"])
    p_value = reference.p_value(kinds["across"].values())
    shared = tuple(sorted(name for name, name_splits in splits.items() if len(name_splits) > 1))
    return Patients(
        per_split={
            split: sum(split in name_splits for name_splits in splits.values())
            for split in sorted({file.split for file in images.files}, key=(UNSPLIT, *SPLITS).index)
        },
        shared=shared,
        shared_subtypes=sum(_shares_subtype(images, members_by_name[name]) for name in shared),
        **similarities,
        ratio=ratio,
        ratio_high=high,
        p_value=p_value,
        conclusion=_conclude(similarities, high, p_value) if shared else None,
    )


def _kind(images: LoadedImages, i: int, j: int) -> str:
    one, other = images.files[i], images.files[j]
    if one.split != other.split:
        return "across"
    return "within" if (one.label, one.subtype) == (other.label, other.subtype) else "subtypes"


def _shares_subtype(images: LoadedImages, members: Sequence[int]) -> bool:
    """Return whether images of one class and subtype are in several splits."""
    splits: dict[tuple[int, str], set[str]] = defaultdict(set)
    for file in (images.files[member] for member in members):
        splits[file.label, file.subtype].add(file.split)
    return any(len(subtype_splits) > 1 for subtype_splits in splits.values())


class _DifferentPatients:
    """Reference similarity of images of different patients in the same split and class."""

    def __init__(self, images: LoadedImages, members_by_name: dict[str, list[int]]) -> None:
        self._rows = _features(images.thumbnails)
        self._own = {index: members for members in members_by_name.values() for index in members}
        pool: dict[tuple[str, int], list[int]] = defaultdict(list)
        for index, file in enumerate(images.files):
            pool[file.split, file.label].append(index)
        self._count = {key: len(members) for key, members in pool.items()}
        self._sums = {key: self._rows[members].sum(0) for key, members in pool.items()}
        self._keys = [(file.split, file.label) for file in images.files]
        self._patients: dict[tuple[str, int], list[tuple[list[int], Floats]]] = defaultdict(list)
        for members in members_by_name.values():
            for key in {self._keys[member] for member in members}:
                in_pool = [member for member in members if self._keys[member] == key]
                self._patients[key].append((members, self._rows[in_pool].mean(0)))

    def excess(self, pairs: Sequence[tuple[int, int]]) -> float:
        """Compute the mean cosine of pairs of images, minus their expected cosine if the patients were different.

        The expected cosine compares each image of a pair with the different patients in the split and class of the
        other image.
        """
        rows, mean = self._rows, self._mean
        return float(np.mean([rows[i] @ rows[j] - (rows[i] @ mean(j) + rows[j] @ mean(i)) / 2 for i, j in pairs]))

    def _mean(self, index: int) -> Floats:
        own = [member for member in self._own[index] if self._keys[member] == self._keys[index]]
        count = self._count[self._keys[index]] - len(own)
        rest = self._sums[self._keys[index]] - self._rows[own].sum(0)
        return np.asarray(rest / max(count, 1), np.float64)

    def p_value(self, names: Iterable[Sequence[tuple[int, int]]]) -> float | None:
        """Compute the probability that random different patients are as similar as the pairs of each name.

        Each draw replaces the second images of a name with all images of another patient. Single images are not drawn:
        images of one patient are similar, so pairs of one name are not independent.
        """
        pools: dict[tuple[int, tuple[str, int]], list[tuple[int, int]]] = defaultdict(list)
        for name_index, pairs in enumerate(names):
            for pair in pairs:
                pools[name_index, self._keys[pair[1]]].append(pair)
        if not pools:
            return None
        random = np.random.default_rng(0)
        observed, drawn = 0.0, np.zeros(_DRAWS)
        for (_, key), pairs in pools.items():
            own = self._own[pairs[0][1]]
            others = [row for members, row in self._patients[key] if members is not own]
            if not others:
                return None
            first = self._rows[[i for i, _ in pairs]].mean(0)
            drawn += (np.array(others) @ first)[random.integers(0, len(others), _DRAWS)]
            observed += float(np.mean([self._rows[i] @ self._rows[j] for i, j in pairs]))
        return float((1 + (drawn > observed - ROUNDING_ERROR * len(pools)).sum()) / (1 + _DRAWS))


def _features(thumbnails: NDArray[np.uint8]) -> Floats:
    """Compute whitened principal components of standardized thumbnails, (N, components), with rows of unit length."""
    count, side = len(thumbnails), thumbnails.shape[1]
    blocks = thumbnails.reshape(count, _SIDE, side // _SIDE, _SIDE, side // _SIDE).mean((2, 4), dtype=np.float32)
    rows = blocks.reshape(count, -1).astype(np.float64)
    rows = (rows - rows.mean(1, keepdims=True)) / np.maximum(rows.std(1, keepdims=True), 1e-6)
    rows -= rows.mean(0)
    variances, axes = np.linalg.eigh(rows.T @ rows / count)
    components = max(min(_COMPONENTS, count // 4), 1)
    scores = rows @ axes[:, -components:] / np.sqrt(np.maximum(variances[-components:], 1e-9))
    return np.asarray(scores / np.maximum(np.linalg.norm(scores, axis=1, keepdims=True), 1e-9), np.float64)


def _summarize(excess: Sequence[float], pairs: int) -> Similarity:
    mean = float(np.mean(excess)) if excess else None
    if len(excess) < 2:
        return Similarity(len(excess), pairs, mean, None, None)
    return Similarity(len(excess), pairs, mean, *map(float, np.quantile(_resampled(excess), (0.025, 0.975))))


def _resampled(excess: Sequence[float]) -> Floats:
    values = np.asarray(excess)
    draws = np.random.default_rng(0).integers(0, len(values), (_DRAWS, len(values)))
    return np.asarray(values[draws].mean(1), np.float64)


def _ratio(across: Sequence[float], within: Sequence[float]) -> tuple[float | None, float | None]:
    if len(across) < 2 or len(within) < 2 or (denominators := _resampled(within)).min() < ROUNDING_ERROR:
        return None, None
    ratios = _resampled(across) / np.random.default_rng(1).permutation(denominators)
    return float(np.mean(across) / np.mean(within)), float(np.quantile(ratios, 0.975))


def _conclude(similarities: dict[str, Similarity], ratio_high: float | None, p_value: float | None) -> Conclusion:
    """Conclude from the similarities whether shared names denote the same patients."""
    names = min(similarities["across"].names, similarities["within"].names)
    if names >= MIN_NAMES and ratio_high is not None and ratio_high < 0.5:
        return "different"
    return "same" if p_value is not None and p_value < _ALPHA else "undecided"
