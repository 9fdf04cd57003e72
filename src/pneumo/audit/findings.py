"""All findings of an audit, collected in one pass over the files."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from pneumo.audit.patients import Patients, weigh_patients
from pneumo.audit.properties import Copies, Pictures, count_identical, list_copies, read_pictures
from pneumo.audit.shortcuts import Probe, probe_shortcuts
from pneumo.audit.tree import Tree, read_tree
from pneumo.data.duplicates import group_duplicates

# What is compared between classes, from a file's bytes and its picture's width and height.
QUANTITIES: dict[str, Callable[[int, int, int], float]] = {
    "width": lambda size, width, height: width,
    "height": lambda size, width, height: height,
    "aspect": lambda size, width, height: width / height,
    "kilobytes": lambda size, width, height: size / 1e3,
    "bytes_per_pixel": lambda size, width, height: size / (width * height),
}


@dataclass(frozen=True)
class Findings:
    """What an audit has found."""

    tree: Tree  # the files
    pictures: Pictures  # what they hold
    copies: list[Copies]  # groups of copies
    identical: tuple[int, int]  # sets of files that are the same to the byte, and the files in them
    patients: Patients  # what names tell of patients
    probes: list[Probe]  # how well labels are guessed without a look at the lungs

    def paths(self, group: Copies) -> list[str]:
        """Give the paths of a group's files."""
        return [self.pictures.files[member].path for member in group.members]

    def counts(self) -> dict[tuple[str, str, str], int]:
        """Count the images by split, class and subtype, whether readable or not."""
        names, counts = self.tree.classes, Counter((f.split, f.label, f.subtype) for f in self.tree.files)
        order = sorted(counts, key=lambda key: (self.tree.splits.index(key[0]), *key[1:]))
        return {(split, names[label], subtype): counts[split, label, subtype] for split, label, subtype in order}

    def class_counts(self) -> dict[str, dict[str, int]]:
        """Count the images by split and class; a class that a split lacks counts 0."""
        counts = Counter((file.split, self.tree.classes[file.label]) for file in self.tree.files)
        return {split: {name: counts[split, name] for name in self.tree.classes} for split in self.tree.splits}

    def values(self, quantity: str) -> dict[str, list[float]]:
        """Give one of `QUANTITIES` of each readable image, by class."""
        found: dict[str, list[float]] = {name: [] for name in self.tree.classes}
        for file, picture in self.pictures.pairs:
            value = QUANTITIES[quantity](file.size, picture.width, picture.height)
            found[self.tree.classes[file.label]].append(float(value))
        return found

    def kinds(self) -> dict[tuple[str, str, str], int]:
        """Count the readable images by class, format and mode."""
        counts = Counter((self.tree.classes[file.label], p.format, p.mode) for file, p in self.pictures.pairs)
        return dict(sorted(counts.items()))


def audit(root: Path, classes: Sequence[str] = ()) -> Findings:
    """Look for what could make numbers a lie in a folder of classes, or of train/, val/ or test/ with classes in them.

    Without `classes`, all folders with images in them are classes.

    Raises:
        DataError: There is no such tree, or nothing in it can be read.
    """
    tree = read_tree(root, classes)
    pictures = read_pictures(tree)
    with threadpool_limits(1):  # the last bits of a sum depend on how threads divide it
        groups = group_duplicates(pictures.thumbnails)
        patients = weigh_patients(pictures, groups)
        probes = probe_shortcuts(pictures, groups)
    return Findings(tree, pictures, list_copies(pictures, groups), count_identical(pictures), patients, probes)


def quantiles(values: Sequence[float]) -> list[float]:
    """Give minimum, quartiles and maximum; nothing for no values."""
    return [float(value) for value in np.quantile(values, (0, 0.25, 0.5, 0.75, 1))] if values else []
