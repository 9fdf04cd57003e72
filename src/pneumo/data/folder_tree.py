"""Data sets in a tree of folders: found below the given folder, or above it."""

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
_DEPTH = 4  # levels below the named folder, and above it
_WIDTH = 1000  # folders per level: a search through a whole disk ends within seconds


def is_hidden(name: str) -> bool:
    """Return whether an entry of a folder is hidden, or is the `__MACOSX` that macOS adds to archives."""
    return name == "__MACOSX" or (name.startswith(".") and name != "..")


def has_splits(folder: Path) -> bool:
    """Return whether a folder has the folders train/ and test/."""
    return (folder / "train").is_dir() and (folder / "test").is_dir()


def find_data_sets(root: Path) -> list[Path]:
    """List the folders with train/ and test/ below `root`; if there is none, the one whose split holds `root`."""
    if found := _search(root):
        return found
    lineage = [root.absolute(), *root.absolute().parents][: _DEPTH + 1] if root.is_dir() else []
    return [above for child, above in pairwise(lineage) if child.name in SPLITS and has_splits(above)][:1]


def find_nested(folders: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """List the data sets below a folder that was taken for one, as their parts; none if the folder itself is one.

    Two and more classes may have any sub-folders, of patients or of splits. What lies below them is a data set only if
    its splits share their class folders, or if its classes are called NORMAL and PNEUMONIA. A single class whose images
    all lie in several sub-folders is one. `folders` are those with images, relative to that folder, as their parts.
    """
    top = _Folder(())
    for parts in folders:
        top.add(parts)
    if top.images or top.names >= _CLASS_NAMES:
        return []
    alone = len(top.children) == 1
    return sorted(parts for child in top.children.values() for parts in _find_in(child, alone))


def describe_misplaced(root: Path, found: Sequence[Path], option: str) -> str:
    """Describe which folders were found instead of `root`, and how to name one after `option`, such as `data.root=`."""
    where = "below it" if found[0].is_relative_to(root) else "above it"
    named = f"{option}{shlex.quote(str(found[0]))}"
    if option.endswith("="):
        named = quote_override(f"{option}{found[0]}")
    if len(found) == 1:
        return f"the data set lies {where}. Name its own folder: {named}"
    listed = ", ".join(str(folder) for folder in found[:10]) + (", ..." if len(found) > 10 else "")
    return f"several data sets lie {where}: {listed}. Name one of them, as in {named}"


@dataclass
class _Folder:
    """A folder of a tree, with those below it that have images."""

    parts: tuple[str, ...]
    images: bool = False  # directly in it
    children: dict[str, "_Folder"] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(name.lower() for name in self.children)

    def add(self, parts: tuple[str, ...]) -> None:
        folder = self
        for name in parts:
            folder = folder.children.setdefault(name, _Folder((*folder.parts, name)))
        folder.images = True


def _find_in(folder: _Folder, alone: bool) -> list[tuple[str, ...]]:
    """List the data sets in a folder and below it; `alone` is true if all images lie in this folder."""
    if _is_data_set(folder):
        return [folder.parts]
    below = alone and len(folder.children) == 1 and not folder.images
    if found := [parts for child in folder.children.values() for parts in _find_in(child, below)]:
        return found
    splits = [child for name, child in folder.children.items() if name.lower() in SPLIT_NAMES]
    several = len(folder.children) > 1 or splits
    nested = alone and several and not folder.images and not any(split.images for split in splits)
    return [folder.parts] if nested else []


def _is_data_set(folder: _Folder) -> bool:
    if folder.names >= _CLASS_NAMES:
        return True
    splits = [child for name, child in folder.children.items() if name.lower() in SPLIT_NAMES and not child.images]
    shared = frozenset.intersection(*(split.names for split in splits)) if splits else frozenset()
    return shared >= _CLASS_NAMES or (len(splits) > 1 and len(shared) > 1)


def _search(root: Path) -> list[Path]:
    """List the folders with splits below `root`, level by level; none lies in another."""
    found: list[Path] = []
    seen: set[str] = set()  # links can make circles
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
        named = (entry for entry in entries if not is_hidden(entry.name))
        return sorted(Path(entry.path) for entry in named if entry.is_dir())
    return []
