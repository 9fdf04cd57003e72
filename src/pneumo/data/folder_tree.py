"""Search for data sets below or above a given folder."""

import os
import shlex
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from pneumo.common.text import quote_override

SPLITS = ("train", "val", "test")
SPLIT_NAMES = frozenset({*SPLITS, "training", "valid", "validation", "testing"})
_CLASS_NAMES = frozenset({"normal", "pneumonia"})
_DEPTH = 4  # levels below and above the given folder
_WIDTH = 1000  # folders per level; limits the search of a whole disk to seconds


def is_hidden(name: str) -> bool:
    """Return whether a folder entry is hidden, or is the folder `__MACOSX` that macOS adds to archives."""
    return name == "__MACOSX" or (name.startswith(".") and name != "..")


def has_splits(folder: Path) -> bool:
    """Return whether a folder contains the folders train/ and test/."""
    return (folder / "train").is_dir() and (folder / "test").is_dir()


def find_data_sets(root: Path) -> list[Path]:
    """List the folders with train/ and test/ below `root`; if there are none, the data set that contains `root`."""
    if found := _search(root):
        return found
    ancestors = [root.absolute(), *root.absolute().parents][: _DEPTH + 1] if root.is_dir() else []
    return [parent for child, parent in pairwise(ancestors) if child.name in SPLITS and has_splits(parent)][:1]


def find_nested(folders: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """List the data sets nested in a supposed data set, as path components; empty if the folder itself is a data set.

    Sub-folders of two or more classes may be patients or splits. Such a sub-folder is a data set only if its splits
    have the same class folders, or if its classes are NORMAL and PNEUMONIA. A single class folder is a data set if all
    its images are in several sub-folders.

    Args:
        folders: Folders with images, as path components relative to the supposed data set.
    """
    top = _Folder(())
    for parts in folders:
        top.add(parts)
    if top.images or top.names >= _CLASS_NAMES:
        return []
    only_child = len(top.children) == 1
    return sorted(parts for child in top.children.values() for parts in _find_in(child, only_child))


def describe_misplaced(root: Path, found: Sequence[Path], option: str) -> str:
    """Describe the data sets found instead of `root`, and how to select one with `option`, such as `data.root=`."""
    where = "below it" if found[0].is_relative_to(root) else "above it"
    argument = f"{option}{shlex.quote(str(found[0]))}"
    if option.endswith("="):
        argument = quote_override(f"{option}{found[0]}")
    if len(found) == 1:
        return f"the data set is {where}. Use {argument}"
    listed = ", ".join(str(folder) for folder in found[:10]) + (", ..." if len(found) > 10 else "")
    return f"several data sets are {where}: {listed}. Use one of them, such as {argument}"


@dataclass
class _Folder:
    """Folder in a tree, with the sub-folders that contain images."""

    parts: tuple[str, ...]
    images: bool = False  # whether it directly contains images
    children: dict[str, "_Folder"] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(name.lower() for name in self.children)

    def add(self, parts: tuple[str, ...]) -> None:
        folder = self
        for name in parts:
            folder = folder.children.setdefault(name, _Folder((*folder.parts, name)))
        folder.images = True


def _find_in(folder: _Folder, only_child: bool) -> list[tuple[str, ...]]:
    """List the data sets in a folder and below it; `only_child` is true if all images of the tree are below it."""
    if _is_data_set(folder):
        return [folder.parts]
    below = only_child and len(folder.children) == 1 and not folder.images
    if found := [parts for child in folder.children.values() for parts in _find_in(child, below)]:
        return found
    splits = [child for name, child in folder.children.items() if name.lower() in SPLIT_NAMES]
    several = len(folder.children) > 1 or splits
    nested = only_child and several and not folder.images and not any(split.images for split in splits)
    return [folder.parts] if nested else []


def _is_data_set(folder: _Folder) -> bool:
    if folder.names >= _CLASS_NAMES:
        return True
    splits = [child for name, child in folder.children.items() if name.lower() in SPLIT_NAMES and not child.images]
    shared = frozenset.intersection(*(split.names for split in splits)) if splits else frozenset()
    return shared >= _CLASS_NAMES or (len(splits) > 1 and len(shared) > 1)


def _search(root: Path) -> list[Path]:
    """List the folders with splits below `root`, level by level, without searching within them."""
    found: list[Path] = []
    seen: set[str] = set()  # links can form cycles
    level = [root]
    for _ in range(_DEPTH):
        below = [child for folder in level for child in _folders_in(folder)]
        new = {os.path.realpath(folder): folder for folder in reversed(below[:_WIDTH])}
        level = sorted(folder for real, folder in new.items() if real not in seen)
        seen |= new.keys()
        found += filter(has_splits, level)
        level = [folder for folder in level if not has_splits(folder)]
    return found


def _folders_in(folder: Path) -> list[Path]:
    with suppress(OSError), os.scandir(folder) as entries:
        visible = (entry for entry in entries if not is_hidden(entry.name))
        return sorted(Path(entry.path) for entry in visible if entry.is_dir())
    return []
