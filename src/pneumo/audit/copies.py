"""Groups of images that are copies of one another."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pneumo.audit.pictures import Pictures


@dataclass(frozen=True)
class Copies:
    """A group of images that show the same film.

    Attributes:
        members: Their positions, in order.
        identical: Whether all files are the same to the byte.
        splits: The splits that they lie in.
        labels: The classes that they lie in.
    """

    members: tuple[int, ...]
    identical: bool
    splits: tuple[str, ...]
    labels: tuple[int, ...]


def list_copies(pictures: Pictures, groups: NDArray[np.int64]) -> list[Copies]:
    """List the groups of two images or more, those that matter most first: of several splits, of several classes.

    Args:
        pictures: N of them.
        groups: Each one's group, as `pneumo.data.duplicates.group_duplicates` returns it, shape (N,).
    """
    members: dict[int, list[int]] = defaultdict(list)
    for number, group in enumerate(groups.tolist()):
        members[group].append(number)
    found = []
    for several in members.values():
        if len(several) > 1:
            files = [pictures.files[number] for number in several]
            identical = len({pictures.pictures[number].digest for number in several}) == 1
            splits = tuple(dict.fromkeys(file.split for file in files))
            found.append(Copies(tuple(several), identical, splits, tuple(sorted({file.label for file in files}))))
    return sorted(found, key=lambda group: (len(group.splits) == 1, len(group.labels) == 1, group.members))


def count_identical(pictures: Pictures) -> tuple[int, int]:
    """Count the sets of files that are the same to the byte, and the files in them."""
    _, counts = np.unique([picture.digest for picture in pictures.pictures], return_counts=True)
    return int((counts > 1).sum()), int(counts[counts > 1].sum())
