"""All findings of an audit, collected in one pass over the files."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

from pneumo.audit.patients import Patients, compare_patients
from pneumo.audit.properties import DuplicateGroup, LoadedImages, count_identical, list_duplicates, read_images
from pneumo.audit.shortcuts import probe_shortcuts
from pneumo.data.dicom_patients import header_patients
from pneumo.data.duplicates import group_duplicates
from pneumo.data.image_tree import Tree
from pneumo.data.index import file_path
from pneumo.metrics.probes import Probe

# File properties that are compared between classes; arguments: file size in bytes, width and height in pixels.
QUANTITIES: dict[str, Callable[[int, int, int], float]] = {
    "width": lambda size, width, height: width,
    "height": lambda size, width, height: height,
    "aspect": lambda size, width, height: width / height,
    "kilobytes": lambda size, width, height: size / 1e3,
    "bytes_per_pixel": lambda size, width, height: size / (width * height),
}


@dataclass(frozen=True)
class Findings:
    """The results of an audit."""

    tree: Tree  # all files
    images: LoadedImages  # properties and thumbnails of the readable files
    duplicates: list[DuplicateGroup]
    identical: tuple[int, int]  # number of groups of byte-identical files, and number of files in them
    patients: Patients  # comparison of images that share a patient name
    probes: list[Probe]  # AUROCs of labels predicted from features that should not reveal them

    def paths(self, group: DuplicateGroup) -> list[str]:
        """Return the paths of the files in a group."""
        return [self.images.files[member].path for member in group.members]

    def counts(self) -> dict[tuple[str, str, str], int]:
        """Count the images, readable or not, by split, class and subtype."""
        names, counts = self.tree.classes, Counter((f.split, f.label, f.subtype) for f in self.tree.files)
        order = sorted(counts, key=lambda key: (self.tree.splits.index(key[0]), *key[1:]))
        return {(split, names[label], subtype): counts[split, label, subtype] for split, label, subtype in order}

    def class_counts(self) -> dict[str, dict[str, int]]:
        """Count the images by split and class; a class that is missing from a split has the count 0."""
        counts = Counter((file.split, self.tree.classes[file.label]) for file in self.tree.files)
        return {split: {name: counts[split, name] for name in self.tree.classes} for split in self.tree.splits}

    def values(self, quantity: str) -> dict[str, list[float]]:
        """Compute one of `QUANTITIES` for each readable image, by class."""
        values: dict[str, list[float]] = {name: [] for name in self.tree.classes}
        for file, info in self.images.pairs:
            value = QUANTITIES[quantity](file.size, info.width, info.height)
            values[self.tree.classes[file.label]].append(float(value))
        return values

    def formats(self) -> dict[tuple[str, str, str], int]:
        """Count the readable images by class, format and mode."""
        counts = Counter((self.tree.classes[file.label], info.format, info.mode) for file, info in self.images.pairs)
        return dict(sorted(counts.items()))


def audit(tree: Tree) -> Findings:
    """Audit the images of a tree.

    Raises:
        DataError: None of the files can be read.
    """
    tree = _with_header_patients(tree)
    images = read_images(tree)
    with threadpool_limits(1):  # the last bits of a sum depend on the number of threads
        groups = group_duplicates(images.thumbnails)
        patients = compare_patients(images, groups)
        probes = probe_shortcuts(images, groups)
    return Findings(tree, images, list_duplicates(images, groups), count_identical(images), patients, probes)


def _with_header_patients(tree: Tree) -> Tree:
    """Return a tree in which files without a known patient have that of their DICOM header, as pseudonym."""
    unnamed = [file for file in tree.files if file.patient is None]
    pseudonyms = header_patients([file_path(tree.root, file.path) for file in unnamed])
    found = {file.path: pseudonym for file, pseudonym in zip(unnamed, pseudonyms, strict=True) if pseudonym}
    files = (replace(file, patient=found[file.path]) if file.path in found else file for file in tree.files)
    return replace(tree, files=tuple(files))


def quantiles(values: Sequence[float]) -> list[float]:
    """Return the minimum, the three quartiles and the maximum; an empty list if there are no values."""
    return [float(value) for value in np.quantile(values, (0, 0.25, 0.5, 0.75, 1))] if values else []
