"""Properties, thumbnails and duplicates of the audited images."""

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

from pneumo.common.terminal import track
from pneumo.data.decoder_limits import MEMORY_BUDGET
from pneumo.data.image_tree import File, Tree
from pneumo.data.index import file_path
from pneumo.data.radiograph import examine_radiograph, read_content
from pneumo.errors import DataError

SIDE = 128  # side of thumbnails in pixels: enough to display, and twice that of `pneumo.data.duplicates`
_BLOCK = 64  # files submitted to the threads at once, to bound the memory
_FORMAT_ALIASES = {"MPO": "JPEG"}  # Multi-Picture Format of cameras: JPEGs in one file


class ImageInfo(NamedTuple):
    """Properties of an image file."""

    width: int  # in pixels
    height: int  # in pixels
    mode: str  # Pillow's mode, such as L, RGB or I;16
    format: str  # Pillow's format name, such as JPEG
    digest: str  # SHA-256 of the file, in hexadecimal digits
    notes: tuple[str, ...] = ()  # reasons to doubt the image; see `read_radiograph`


@dataclass(frozen=True)
class LoadedImages:
    """The readable files of a tree with their properties, and the unreadable files."""

    files: tuple[File, ...]  # N readable files in the order of the tree
    infos: tuple[ImageInfo, ...]  # their properties
    thumbnails: NDArray[np.uint8]  # greyscale, resized to squares, shape (N, SIDE, SIDE)
    unreadable: tuple[tuple[str, str], ...]  # path and reason

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class index of each file, shape (N,)."""
        return np.array([file.label for file in self.files], np.int64)

    @property
    def pairs(self) -> Iterator[tuple[File, ImageInfo]]:
        """Each file with its properties."""
        return zip(self.files, self.infos, strict=True)

    def noted(self) -> dict[str, tuple[str, ...]]:
        """Return the notes of the files that have any, by path."""
        return {file.path: info.notes for file, info in self.pairs if info.notes}

    def mismatched(self) -> list[tuple[str, str]]:
        """List path and actual format of the files whose suffix belongs to another format."""
        suffixes = Image.registered_extensions()
        return [
            (file.path, info.format)
            for file, info in self.pairs
            if suffixes.get(Path(file.path).suffix.lower()) != info.format
        ]


@dataclass(frozen=True)
class DuplicateGroup:
    """A group of images that show the same radiograph."""

    members: tuple[int, ...]  # sorted indices of the images
    identical: bool  # whether all files are byte-identical
    splits: tuple[str, ...]  # splits of the images
    labels: tuple[int, ...]  # classes of the images


def read_images(tree: Tree) -> LoadedImages:
    """Read all files of a tree in parallel threads."""
    results: list[ImageInfo | str] = []
    thumbnails = np.empty((len(tree.files), SIDE, SIDE), np.uint8)
    paths = [file_path(tree.root, file.path) for file in tree.files]
    with track("Reading images", len(paths)) as update, ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), _BLOCK):
            results += pool.map(_read, paths[start : start + _BLOCK], thumbnails[start : start + _BLOCK])
            update(len(results))
    readable = [(file, info) for file, info in zip(tree.files, results, strict=True) if isinstance(info, ImageInfo)]
    unreadable = [
        (file.path, reason) for file, reason in zip(tree.files, results, strict=True) if isinstance(reason, str)
    ]
    if not readable:
        path, reason = unreadable[0]
        raise DataError(
            f"None of the {len(unreadable)} image files in {tree.root} can be read; {path} {reason} Replace them "
            "with intact images."
        )
    if unreadable:
        thumbnails = thumbnails[[isinstance(result, ImageInfo) for result in results]]
    files, infos = zip(*readable, strict=True)
    return LoadedImages(files, infos, thumbnails, tuple(unreadable))


def _read(path: Path, thumbnail: NDArray[np.uint8]) -> ImageInfo | str:
    """Return the properties of a file and fill `thumbnail`, or return the reason why it cannot be read."""
    with MEMORY_BUDGET.reservation():
        try:
            content = read_content(path)
            (image, notes), storage = examine_radiograph(content)
        except DataError as error:
            return str(error)
        thumbnail[:] = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    digest = hashlib.sha256(content).hexdigest()
    return ImageInfo(*image.size, storage.mode, _FORMAT_ALIASES.get(storage.format, storage.format), digest, notes)


def list_duplicates(images: LoadedImages, groups: NDArray[np.int64]) -> list[DuplicateGroup]:
    """List the groups of two or more images, those in several splits first, then those in several classes.

    `groups`, shape (N,), is the result of `pneumo.data.duplicates.group_duplicates`.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for index, group in enumerate(groups.tolist()):
        members[group].append(index)
    duplicates = []
    for indices in members.values():
        if len(indices) > 1:
            files = [images.files[index] for index in indices]
            identical = len({images.infos[index].digest for index in indices}) == 1
            splits = tuple(dict.fromkeys(file.split for file in files))
            labels = tuple(sorted({file.label for file in files}))
            duplicates.append(DuplicateGroup(tuple(indices), identical, splits, labels))
    return sorted(duplicates, key=lambda group: (len(group.splits) == 1, len(group.labels) == 1, group.members))


def count_identical(images: LoadedImages) -> tuple[int, int]:
    """Count the groups of byte-identical files, and the files in them."""
    _, counts = np.unique([info.digest for info in images.infos], return_counts=True)
    return int((counts > 1).sum()), int(counts[counts > 1].sum())
