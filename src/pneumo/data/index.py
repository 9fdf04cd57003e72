"""The index of radiographs in a folder tree, with what file names encode."""

import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from pneumo.common import SUBTYPES
from pneumo.common.files import escape_path, unescape_path
from pneumo.data.folder_tree import SPLITS, describe_misplaced, find_data_sets, has_splits
from pneumo.errors import DataError

_log = logging.getLogger(__name__)
DEFAULT_ROOT = Path("data/chest_xray")
ROOT_VARIABLE = "PNEUMO_DATA_ROOT"  # of the environment
# person1000_bacteria_2931.jpeg; IM-0115-0001.jpeg, IM-0117-0001-0002.jpeg, NORMAL2-IM-0383-0001.jpeg
_PNEUMONIA = re.compile(r"(?P<patient>person\d+)_(?P<subtype>bacteria|virus)_")
_NORMAL = re.compile(r"(?P<patient>(?:NORMAL\d+-)?IM-\d+)-")
_SUBTYPES = dict(zip(("bacteria", "virus"), SUBTYPES, strict=True))  # by the words in names of files


@dataclass(frozen=True, slots=True)
class Radiograph:
    """One image of the data set."""

    path: str  # relative to the data set's root, with forward slashes, as text; `file_path` returns the file
    label: int  # index of its class among the data set's classes
    subtype: str  # bacterial, viral or none
    patient: str  # as in the file name; the file's own name where it has none
    split: str  # train, val or test: the folder that it lies in
    size: int  # of the file, in bytes
    modified: int  # when the file was changed last, in nanoseconds since 1970


def locate(root: Path) -> Path | None:
    """Return the folder that holds train/ and test/: `root` or, as in published archives, root/chest_xray."""
    return next(filter(has_splits, (root, root / "chest_xray")), None)


def default_root() -> Path:
    """Return data/chest_xray, or $PNEUMO_DATA_ROOT where that is set and no data set lies in data/chest_xray."""
    named = os.environ.get(ROOT_VARIABLE)
    return Path(named) if named and locate(DEFAULT_ROOT) is None else DEFAULT_ROOT


def is_default_root(root: Path) -> bool:
    """Return whether `root` is a folder in which real data lie by default."""
    named = (DEFAULT_ROOT, Path(os.environ.get(ROOT_VARIABLE) or DEFAULT_ROOT))
    return root.resolve() in {path.resolve() for folder in named for path in (folder, folder / "chest_xray")}


def find_root(root: Path) -> Path:
    """Return what `locate` finds; raise a DataError if it finds nothing."""
    if (folder := locate(root)) is not None:
        return folder
    state = "has no train/ and test/ in it" if root.is_dir() else "does not exist"
    if found := find_data_sets(root):
        raise DataError(f"data.root={root} {state}: {describe_misplaced(root, found, 'data.root=')}.")
    raise DataError(
        f"data.root={root} {state}. A data set is a folder with train/, test/ and, if there is one, val/, each with "
        f"one folder per class: give its path as data.root=FOLDER or in {ROOT_VARIABLE}, leave data.root out to have "
        "the data downloaded to data/chest_xray where nothing is there, or take data=synthetic, which needs no data."
    )


def index_radiographs(root: Path, classes: Sequence[str]) -> list[Radiograph]:
    """List the radiographs in root/{train,val,test}/<class>/, sorted by path; the order of `classes` gives the labels.

    The folder val may be missing. What is no image of a class (other suffixes, hidden or empty files, `__MACOSX`, other
    folders) is counted and named in one warning.

    Raises:
        DataError: A folder is missing, a class has no image in a split, or the disk denies a file.
    """
    root = find_root(root)
    radiographs, junk = scan_radiographs(root, classes)
    if junk:
        shown = ", ".join(sorted(junk)[:5]) + (", ..." if len(junk) > 5 else "")
        _log.warning("%d entries of %s are not images of a class and are left out: %s", len(junk), root, shown)
    return radiographs


def scan_radiographs(root: Path, classes: Sequence[str]) -> tuple[list[Radiograph], list[str]]:
    """List the radiographs below `root`, sorted by path, and what is none, as paths relative to it."""
    radiographs: list[Radiograph] = []
    junk: list[str] = []
    with readable_entries():
        for split in [name for name in SPLITS if name != "val" or (root / name).is_dir()]:
            junk += [relative_path(str(path), root) for path in (root / split).iterdir() if path.name not in classes]
            for label, name in enumerate(classes):
                before = len(radiographs)
                for entry in walk(root / split / name):
                    if is_image(entry):
                        radiographs.append(_describe(entry, root, split, label))
                    else:
                        junk.append(relative_path(entry.path, root))
                if len(radiographs) == before:
                    raise _empty_class(root / split / name, classes)
    return sorted(radiographs, key=lambda radiograph: radiograph.path), junk


@contextmanager
def readable_entries() -> Iterator[None]:
    """Raise a DataError where an entry of a data set cannot be listed or read."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{error.filename} cannot be read ({error.strerror}). Each entry of a data set must be a readable file or "
            "folder, or a link to one: mend its permissions or its link, or delete it."
        ) from error


def label_subtypes(radiographs: Sequence[Radiograph], classes: Sequence[str]) -> tuple[list[Radiograph], list[str]]:
    """Label radiographs of the positive class by the subtype in their names; return them and the three classes."""
    unnamed = [image.path for image in radiographs if image.label and image.subtype not in SUBTYPES]
    if unnamed:
        raise DataError(
            f"data.task=subtype takes bacterial or viral from names such as person1_virus_6.jpeg, and {len(unnamed)} "
            f"images of {classes[1]} have no such name, among them {unnamed[0]}: rename them, or take "
            "data.task=pneumonia."
        )
    labelled = [replace(image, label=1 + SUBTYPES.index(image.subtype) if image.label else 0) for image in radiographs]
    return labelled, [classes[0], *(name.upper() for name in SUBTYPES)]


def count_classes(radiographs: Iterable[Radiograph], classes: Sequence[str]) -> str:
    """Return how many images each class has, such as `1341 NORMAL, 3875 PNEUMONIA`."""
    counts = Counter(radiograph.label for radiograph in radiographs)
    return ", ".join(f"{counts[label]} {name}" for label, name in enumerate(classes))


def indices_of(radiographs: Iterable[Radiograph], among: Sequence[Radiograph]) -> list[int]:
    """Return the index of each of some radiographs among others, by their paths."""
    place = {radiograph.path: i for i, radiograph in enumerate(among)}
    return [place[radiograph.path] for radiograph in radiographs]


def data_hash(radiographs: Iterable[Radiograph]) -> str:
    """Hash the paths, which name split and class, and sizes of a data set's files, 16 hex digits."""
    digest = hashlib.sha256()
    for radiograph in radiographs:
        digest.update(f"{radiograph.path} {radiograph.size}\n".encode())
    return digest.hexdigest()[:16]


def file_path(root: Path, path: str) -> Path:
    """Return the file of a radiograph's path."""
    return root / unescape_path(path)


def relative_path(path: str, root: Path) -> str:
    """Return the text of a file's path relative to `root`, with forward slashes."""
    return escape_path(os.path.relpath(path, root).replace(os.sep, "/"))


def read_name(name: str) -> tuple[str | None, str]:
    """Return the patient in a file's name, if there is one, and the subtype: bacterial, viral or none."""
    match = _PNEUMONIA.match(name) or _NORMAL.match(name)
    found = match.groupdict() if match else {}
    return found.get("patient"), _SUBTYPES.get(found.get("subtype", ""), "none")


def walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield the files in a folder and those below it; links to files and folders are followed."""
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from walk(Path(entry.path))
            else:
                yield entry


def is_image(entry: os.DirEntry[str]) -> bool:
    """Return whether a file is one of a data set's: by its suffix, and neither hidden nor empty."""
    return (
        not entry.name.startswith(".")
        and "__MACOSX" not in entry.path
        and os.path.splitext(entry.name)[1].lower() in Image.registered_extensions()
        and entry.stat().st_size > 0
    )


def _describe(entry: os.DirEntry[str], root: Path, split: str, label: int) -> Radiograph:
    patient, subtype = read_name(entry.name)
    patient = escape_path(entry.name) if patient is None else patient
    status = entry.stat()
    path = relative_path(entry.path, root)
    return Radiograph(path, label, subtype, patient, split, status.st_size, status.st_mtime_ns)


def _empty_class(folder: Path, classes: Sequence[str]) -> DataError:
    state = "has no image in it"
    if not folder.is_dir():
        beside = sorted(path.name for path in folder.parent.iterdir() if path.is_dir())
        state = f"does not exist (beside it: {', '.join(beside) or 'nothing'})"
    return DataError(
        f"{folder} {state}. Each of train/, val/ and test/ needs at least one image of each class, in a folder of the "
        f"class's name: put images there, or name the folders that there are as data.classes=[...] "
        f"(now [{', '.join(classes)}])."
    )
