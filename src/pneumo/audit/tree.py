"""The audited folder tree: images by split and class, whatever these are called."""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pneumo.common.files import escape_path
from pneumo.data.folder_tree import SPLIT_NAMES, SPLITS, describe_misplaced, find_nested, is_hidden
from pneumo.data.index import is_image, read_name, readable_entries, relative_path, walk
from pneumo.data.phantoms import MARKER
from pneumo.errors import DataError

WHOLE = "all"  # the split of a tree that has none


@dataclass(frozen=True, slots=True)
class File:
    """One image file."""

    path: str  # relative to the tree's root, with forward slashes, as text; see `pneumo.data.index.file_path`
    split: str  # train, val or test; `WHOLE` where the tree has no splits
    label: int  # index of its class in `Tree.classes`
    subtype: str  # bacterial, viral or none
    patient: str | None  # the patient in the file's name, if there is one
    size: int  # in bytes


@dataclass(frozen=True, slots=True)
class Tree:
    """What lies in a folder."""

    root: Path  # the folder that holds the splits, or the classes where there are no splits
    splits: tuple[str, ...]  # in the order train, val, test
    classes: tuple[str, ...]  # sorted by name, or as they were given
    files: tuple[File, ...]  # sorted by path
    junk: tuple[str, ...]  # paths of what is no image of a class


def read_tree(root: Path, classes: Sequence[str] = ()) -> Tree:
    """List the images in root/{train,val,test}/CLASS/, in root/chest_xray/{train,val,test}/CLASS/ or in root/CLASS/.

    Any of the splits may be missing. Without `classes`, all folders with images in them are classes.

    Raises:
        DataError: No images are found, a class is found nowhere, the images are those of a data set in a sub-folder,
            or the disk denies a file.
    """
    if not root.is_dir():
        raise DataError(
            f"{root} is no folder. `pneumo audit` takes the folder of a data set, with one folder per class in it, or "
            "with train/, val/ or test/ and one folder per class in each: name such a folder."
        )
    with readable_entries():
        return _read(root, [escape_path(name) for name in classes])


def _read(root: Path, classes: Sequence[str]) -> Tree:
    folders = [folder for folder in (root, root / "chest_xray") if any((folder / name).is_dir() for name in SPLITS)]
    root = folders[0] if folders else root
    splits = tuple(name for name in SPLITS if (root / name).is_dir()) if folders else (WHOLE,)
    found: list[tuple[str, str, os.DirEntry[str]]] = []
    below: dict[str, set[str]] = {split: set() for split in splits}
    others = [path for path in root.iterdir() if path.name not in (*splits, MARKER)] if folders else []
    junk = [relative_path(str(path), root) for path in others]
    for split in splits:
        for entry, name in _entries(_place(root, split)):
            image = name is not None and is_image(entry)
            if image:
                below[split].add(os.path.dirname(entry.path))
            if name is not None and image and (not classes or name in classes):
                found.append((split, name, entry))
            else:
                junk.append(relative_path(entry.path, root))
    present = {name for _, name, _ in found}
    names = tuple(classes) or tuple(sorted(present))
    if not classes or not set(classes) <= present:
        _check_nesting(root, below)
    _check(root, classes, splits, present)
    files = []
    for split, name, entry in found:
        patient, subtype = read_name(entry.name)
        path = relative_path(entry.path, root)
        files.append(File(path, split, names.index(name), subtype, patient, entry.stat().st_size))
    return Tree(root, splits, names, tuple(sorted(files, key=lambda file: file.path)), tuple(sorted(junk)))


def _entries(folder: Path) -> Iterator[tuple[os.DirEntry[str], str | None]]:
    """Give all files below a folder, each with the name of the class folder that it lies in."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                name = None if is_hidden(entry.name) else escape_path(entry.name)
                yield from ((file, name) for file in walk(Path(entry.path)))
            else:
                yield entry, None


def _check(root: Path, classes: Sequence[str], splits: Sequence[str], found: set[str]) -> None:
    if len(set(classes)) < len(classes):
        raise DataError(f"--classes {','.join(classes)} names a class twice: name each once.")
    # Splits by other names: their images would be left out, or be taken for those of classes.
    other = sorted(
        path.name for path in root.iterdir() if path.name.lower() in SPLIT_NAMES - {*splits} and path.is_dir()
    )
    if other:
        raise DataError(
            f"{root} has a folder {other[0]}/, which is no split: call it train/, val/ or test/, or move it away."
        )
    if not found and any(is_image(entry) for entry in list(os.scandir(root))):
        parent = root.resolve().parent
        raise DataError(
            f"The images of {root} lie in it themselves, as those of one class do: name the folder that it lies in, "
            f"{parent.parent if parent.name.lower() in SPLIT_NAMES else parent}, or put them in one folder per class."
        )
    missing = [name for name in classes if name not in found]
    if missing or not found:
        places = [_place(root, split) for split in splits]
        there = sorted({entry.name for place in places for entry in os.scandir(place) if entry.is_dir()})
        what = f"of {', '.join(missing)}" if missing else "in any folder of a class"
        raise DataError(
            f"There is no image {what} below {root}; the folders there are {', '.join(there) or 'none'}. A data set is "
            "one folder per class, or train/, val/ or test/ with one folder per class in each, and every class has an "
            "image: name such a folder, or the classes that it has as --classes A,B."
        )


def _check_nesting(root: Path, below: Mapping[str, set[str]]) -> None:
    """Refuse a folder whose sub-folders are data sets, or whose splits have their classes one level too deep."""
    folders = {
        split: {Path(os.path.relpath(path, _place(root, split))).parts for path in paths}
        for split, paths in below.items()
    }
    nested = {split: find_nested(parts) for split, parts in folders.items()}
    tops = sorted({parts[0] for split in folders.values() for parts in split if parts})
    named = shlex.quote(",".join(tops))
    escape = f"If {'this folder is a class' if len(tops) == 1 else 'these folders are classes'}, add --classes {named}."
    if whole := nested.get(WHOLE):
        found = [root.joinpath(*parts) for parts in whole]
        raise DataError(f"{root} is no data set: {describe_misplaced(root, found, 'pneumo audit ')}. {escape}")
    if WHOLE not in nested and all(nested.values()):
        deep = ", ".join(sorted({"/".join((split, *parts)) for split in nested for parts in nested[split]}))
        raise DataError(
            f"The class folders of {root} lie too deep, in {deep}: move them up, into {', '.join(nested)}. {escape}"
        )


def _place(root: Path, split: str) -> Path:
    return root if split == WHOLE else root / split
