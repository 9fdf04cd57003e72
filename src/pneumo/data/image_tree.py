"""Images of a folder tree by split and class, with any class names."""

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

UNSPLIT = "all"  # name of the only split of a tree without splits


@dataclass(frozen=True, slots=True)
class File:
    """An image file."""

    path: str  # escaped text, relative to the root, with forward slashes; see `pneumo.data.index.file_path`
    split: str  # train, val or test; `UNSPLIT` if the tree has no splits
    label: int  # index of its class in `Tree.classes`
    subtype: str  # bacterial, viral or none
    patient: str | None  # patient from the table, or from the file name in a folder; None if unknown
    size: int  # in bytes


@dataclass(frozen=True, slots=True)
class Tree:
    """The files of a data set."""

    root: Path  # the folder of the splits, or of the classes if there are no splits
    splits: tuple[str, ...]  # in the order train, val, test
    classes: tuple[str, ...]  # sorted by name, or in the given order
    files: tuple[File, ...]  # sorted by path
    junk: tuple[str, ...]  # paths of files that are not images of a class
    table: Path | None = None  # label table that lists the files; None for class folders
    omitted: tuple[tuple[str, str], ...] = ()  # file and reason of each row of the table that is not used

    @property
    def source(self) -> Path:
        """The table, or the folder if there is none."""
        return self.root if self.table is None else self.table


def read_tree(
    root: Path, classes: Sequence[str] = (), command: str = "pneumo audit ", selection: str = "add --classes {}"
) -> Tree:
    """List the images in root/{train,val,test}/CLASS/, in root/chest_xray/{train,val,test}/CLASS/ or in root/CLASS/.

    Any of the splits may be missing. Without `classes`, all folders that contain images are classes.

    Args:
        root: Folder of the data set.
        classes: Names of the class folders.
        command: Start of a command line that reads a folder, for errors.
        selection: How to select the classes, for errors; `{}` stands for their names, separated by commas.

    Raises:
        DataError: There are no images, a class is missing, the data set is in a sub-folder, or a file cannot be
            accessed.
    """
    if not root.is_dir():
        raise DataError(
            f"{root} is not a folder. Use the folder of a data set, which has one folder per class, or train/, val/ or "
            "test/ with one folder per class in each."
        )
    with readable_entries():
        return _read(root, [escape_path(name) for name in classes], command, selection)


def _read(root: Path, classes: Sequence[str], command: str, selection: str) -> Tree:
    folders = [folder for folder in (root, root / "chest_xray") if any((folder / name).is_dir() for name in SPLITS)]
    root = folders[0] if folders else root
    splits = tuple(name for name in SPLITS if (root / name).is_dir()) if folders else (UNSPLIT,)
    images: list[tuple[str, str, os.DirEntry[str]]] = []
    image_folders: dict[str, set[str]] = {split: set() for split in splits}
    others = [path for path in root.iterdir() if path.name not in (*splits, MARKER)] if folders else []
    junk = [relative_path(str(path), root) for path in others]
    for split in splits:
        for entry, name in _entries(_split_folder(root, split)):
            image = name is not None and is_image(entry)
            if image:
                image_folders[split].add(os.path.dirname(entry.path))
            if name is not None and image and (not classes or name in classes):
                images.append((split, name, entry))
            else:
                junk.append(relative_path(entry.path, root))
    present = {name for _, name, _ in images}
    names = tuple(classes) or tuple(sorted(present))
    if not classes or not set(classes) <= present:
        _check_nesting(root, image_folders, command, selection)
    _check(root, classes, splits, present, selection)
    files = []
    for split, name, entry in images:
        patient, subtype = read_name(entry.name)
        path = relative_path(entry.path, root)
        files.append(File(path, split, names.index(name), subtype, patient, entry.stat().st_size))
    return Tree(root, splits, names, tuple(sorted(files, key=lambda file: file.path)), tuple(sorted(junk)))


def _entries(folder: Path) -> Iterator[tuple[os.DirEntry[str], str | None]]:
    """Yield all files below a folder, each with the name of its class folder, or None for a file outside of them."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                name = None if is_hidden(entry.name) else escape_path(entry.name)
                yield from ((file, name) for file in walk(Path(entry.path)))
            else:
                yield entry, None


def _check(root: Path, classes: Sequence[str], splits: Sequence[str], present: set[str], selection: str) -> None:
    require_distinct(classes)
    # The images of misnamed splits would be ignored, or the splits would be treated as classes.
    other = sorted(
        path.name for path in root.iterdir() if path.name.lower() in SPLIT_NAMES - {*splits} and path.is_dir()
    )
    if other:
        raise DataError(
            f"{root} has a folder {other[0]}/, which is not a split: rename it to train/, val/ or test/, or move it "
            "elsewhere."
        )
    if not present and any(is_image(entry) for entry in list(os.scandir(root))):
        parent = root.resolve().parent
        raise DataError(
            f"{root} contains images directly, like the folder of a single class. Use the folder of the data set, "
            f"{parent.parent if parent.name.lower() in SPLIT_NAMES else parent}, or put the images into one folder per "
            "class."
        )
    missing = [name for name in classes if name not in present]
    if missing or not present:
        folders = [_split_folder(root, split) for split in splits]
        available = sorted({entry.name for folder in folders for entry in os.scandir(folder) if entry.is_dir()})
        where = f"of {', '.join(missing)}" if missing else "in any class folder"
        raise DataError(
            f"There is no image {where} below {root}, which has these folders: {', '.join(available) or 'none'}. A "
            "data set has one folder per class, or train/, val/ or test/ with one folder per class in each, and every "
            f"class needs an image. Use such a folder, or {selection.format('A,B')}."
        )


def require_distinct(classes: Sequence[str]) -> None:
    """Raise a DataError if a class is selected twice."""
    if len(set(classes)) < len(classes):
        raise DataError(f"--classes {','.join(classes)} contains a class twice: list each class once.")


def _check_nesting(root: Path, image_folders: Mapping[str, set[str]], command: str, selection: str) -> None:
    """Raise a DataError if sub-folders of `root` are data sets, or the class folders are one level too deep."""
    folders = {
        split: {Path(os.path.relpath(path, _split_folder(root, split))).parts for path in paths}
        for split, paths in image_folders.items()
    }
    nested = {split: find_nested(parts) for split, parts in folders.items()}
    tops = sorted({parts[0] for split in folders.values() for parts in split if parts})
    option = shlex.quote(",".join(tops))
    subject = "this folder is a class" if len(tops) == 1 else "these folders are classes"
    hint = f"If {subject}, {selection.format(option)}."
    if whole := nested.get(UNSPLIT):
        data_sets = [root.joinpath(*parts) for parts in whole]
        raise DataError(f"{root} is not a data set: {describe_misplaced(root, data_sets, command)}. {hint}")
    if UNSPLIT not in nested and all(nested.values()):
        deep = ", ".join(sorted({"/".join((split, *parts)) for split in nested for parts in nested[split]}))
        raise DataError(
            f"The class folders of {root} are one level too deep, in {deep}: move them up into {', '.join(nested)}. "
            f"{hint}"
        )


def _split_folder(root: Path, split: str) -> Path:
    return root if split == UNSPLIT else root / split
