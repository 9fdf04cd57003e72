"""Properties, thumbnails and identical copies of the audited files."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pneumo.audit.tree import File, Tree
from pneumo.common.terminal import track
from pneumo.data.decoder_limits import BUDGET
from pneumo.data.index import file_path
from pneumo.data.radiograph import examine_radiograph, read_content
from pneumo.errors import DataError

SIDE = 128  # of thumbnails in pixels: twice what the search for copies compares, and enough to look at
_BLOCK = 64  # files read at once, which bounds what is held of them
_SAME = {"MPO": "JPEG"}  # cameras' multi-picture files, which begin as JPEGs


class Picture(NamedTuple):
    """What a file holds."""

    width: int  # in pixels, as `height`
    height: int  # in pixels
    mode: str  # Pillow's name for the channels, such as L, RGB or I;16
    format: str  # Pillow's name for the format, such as JPEG
    digest: str  # SHA-256 of the file, in hexadecimal digits
    notes: tuple[str, ...] = ()  # what may be wrong with the image; see `read_radiograph`


@dataclass(frozen=True)
class Pictures:
    """The readable files of a tree, and those that are not."""

    files: tuple[File, ...]  # N of them, in the tree's order
    pictures: tuple[Picture, ...]  # what they hold
    thumbnails: NDArray[np.uint8]  # grey, squeezed to squares, shape (N, SIDE, SIDE)
    unreadable: tuple[tuple[str, str], ...]  # path and reason

    @property
    def labels(self) -> NDArray[np.int64]:
        """Give each file's class, shape (N,)."""
        return np.array([file.label for file in self.files], np.int64)

    @property
    def pairs(self) -> Iterator[tuple[File, Picture]]:
        """Each file with what it holds."""
        return zip(self.files, self.pictures, strict=True)

    def noted(self) -> dict[str, tuple[str, ...]]:
        """Return the notes by path, without the files that have none."""
        return {f.path: p.notes for f, p in self.pairs if p.notes}

    def mismatched(self) -> list[tuple[str, str]]:
        """List the files whose suffix tells another format than they have, and that format."""
        suffixes = Image.registered_extensions()
        return [(f.path, p.format) for f, p in self.pairs if suffixes.get(Path(f.path).suffix.lower()) != p.format]


@dataclass(frozen=True)
class Copies:
    """A group of images that show the same film."""

    members: tuple[int, ...]  # their positions, in order
    identical: bool  # whether all files are the same to the byte
    splits: tuple[str, ...]  # the splits that they lie in
    labels: tuple[int, ...]  # the classes that they lie in


def read_pictures(tree: Tree) -> Pictures:
    """Read all files of a tree, by as many threads as there are processors."""
    read: list[Picture | str] = []
    films = np.empty((len(tree.files), SIDE, SIDE), np.uint8)
    paths = [file_path(tree.root, file.path) for file in tree.files]
    with track("Reading images", len(paths)) as advance, ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), _BLOCK):
            read += pool.map(_read, paths[start : start + _BLOCK], films[start : start + _BLOCK])
            advance(len(read))
    kept = [(f, p) for f, p in zip(tree.files, read, strict=True) if isinstance(p, Picture)]
    unreadable = [(f.path, p) for f, p in zip(tree.files, read, strict=True) if isinstance(p, str)]
    if not kept:
        path, reason = unreadable[0]
        raise DataError(
            f"None of the {len(unreadable)} image files in {tree.root} can be read; {path} {reason} Files with an "
            "image's suffix must be whole images."
        )
    if unreadable:
        films = films[[isinstance(picture, Picture) for picture in read]]
    files, pictures = zip(*kept, strict=True)
    return Pictures(files, pictures, films, tuple(unreadable))


def _read(path: Path, thumbnail: NDArray[np.uint8]) -> Picture | str:
    """Return what a file holds, with its thumbnail in `thumbnail`, or why it cannot be read, as a predicate."""
    with BUDGET.share():
        try:
            content = read_content(path)
            (image, notes), storage = examine_radiograph(content)
        except DataError as error:
            return str(error)
        thumbnail[:] = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    digest = hashlib.sha256(content).hexdigest()
    return Picture(*image.size, storage.mode, _SAME.get(storage.format, storage.format), digest, notes)


def list_copies(pictures: Pictures, groups: NDArray[np.int64]) -> list[Copies]:
    """List the groups of two images or more, those that matter most first: of several splits, of several classes.

    `groups` are as `pneumo.data.duplicates.group_duplicates` returns them, (N,).
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
