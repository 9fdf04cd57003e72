"""Index of the radiographs in a folder tree, with patients and subtypes from file names."""

import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from pneumo.common import SUBTYPES
from pneumo.common.files import escape_path, unescape_path
from pneumo.data.dicom_signature import HEAD_BYTES, SUFFIXES, is_dicom
from pneumo.data.folder_tree import SPLITS, describe_misplaced, find_data_sets, has_splits
from pneumo.errors import DataError

_log = logging.getLogger(__name__)
DEFAULT_ROOT = Path("data/chest_xray")
ROOT_VARIABLE = "PNEUMO_DATA_ROOT"  # environment variable
# person1000_bacteria_2931.jpeg; IM-0115-0001.jpeg, IM-0117-0001-0002.jpeg, NORMAL2-IM-0383-0001.jpeg
_PNEUMONIA = re.compile(r"(?P<patient>person\d+)_(?P<subtype>bacteria|virus)_")
_NORMAL = re.compile(r"(?P<patient>(?:NORMAL\d+-)?IM-\d+)-")
_SUBTYPES = dict(zip(("bacteria", "virus"), SUBTYPES, strict=True))  # by the words in file names


@dataclass(frozen=True, slots=True)
class Radiograph:
    """Image file of the data set."""

    path: str  # escaped text, relative to the root, with forward slashes; see `file_path`
    label: int  # index of its class among the data set's classes
    subtype: str  # bacterial, viral or none
    patient: str  # from a table, the file name or the DICOM header; the file name if none of them has it
    split: str  # train, val or test, from the folder or the table
    size: int  # file size in bytes
    modified: int  # modification time of the file, in nanoseconds since 1970
    site: str = ""  # from a table; empty if unknown
    extra: tuple[str, ...] = ()  # values of a table's free columns


def locate(root: Path) -> Path | None:
    """Return the folder with train/ and test/: `root` or, as in published archives, root/chest_xray."""
    return next(filter(has_splits, (root, root / "chest_xray")), None)


def default_root() -> Path:
    """Return data/chest_xray, or $PNEUMO_DATA_ROOT if it is set and data/chest_xray contains no data set."""
    variable = os.environ.get(ROOT_VARIABLE)
    return Path(variable) if variable and locate(DEFAULT_ROOT) is None else DEFAULT_ROOT


def is_default_root(root: Path) -> bool:
    """Return whether `root` is a default folder of real data."""
    defaults = (DEFAULT_ROOT, Path(os.environ.get(ROOT_VARIABLE) or DEFAULT_ROOT))
    return root.resolve() in {path.resolve() for folder in defaults for path in (folder, folder / "chest_xray")}


def find_root(root: Path) -> Path:
    """Return the folder found by `locate`; raise a DataError if there is none."""
    if (folder := locate(root)) is not None:
        return folder
    state = "has no train/ and test/ folders" if root.is_dir() else "does not exist"
    if found := find_data_sets(root):
        raise DataError(f"data.root={root} {state}: {describe_misplaced(root, found, 'data.root=')}.")
    raise DataError(
        f"data.root={root} {state}. A data set is a folder with train/, test/ and optionally val/, each with one "
        f"folder per class. Set data.root=FOLDER or {ROOT_VARIABLE} to its path, omit data.root to download the data "
        "to data/chest_xray if that is missing, or use data=synthetic, which needs no data."
    )


def index_radiographs(root: Path, classes: Sequence[str]) -> list[Radiograph]:
    """List the radiographs in root/{train,val,test}/<class>/, sorted by path; labels are indices in `classes`.

    The folder val may be missing. One warning reports all entries that are not images of a class: other suffixes,
    hidden or empty files, `__MACOSX` and other folders.

    Raises:
        DataError: A folder is missing, a class has no image in a split, or a file cannot be read.
    """
    root = find_root(root)
    radiographs, junk = scan_radiographs(root, classes)
    if junk:
        examples = ", ".join(sorted(junk)[:5]) + (", ..." if len(junk) > 5 else "")
        _log.warning("Skipping %d entries of %s that are not images of a class: %s", len(junk), root, examples)
    return radiographs


def scan_radiographs(root: Path, classes: Sequence[str]) -> tuple[list[Radiograph], list[str]]:
    """List the radiographs below `root`, sorted by path, and all other entries, as paths relative to `root`."""
    radiographs: list[Radiograph] = []
    junk: list[str] = []
    with readable_entries():
        for split in [name for name in SPLITS if name != "val" or (root / name).is_dir()]:
            junk += [relative_path(str(path), root) for path in (root / split).iterdir() if path.name not in classes]
            for label, name in enumerate(classes):
                before = len(radiographs)
                for entry in walk(root / split / name):
                    if is_image(entry):
                        radiographs.append(_make_radiograph(entry, root, split, label))
                    else:
                        junk.append(relative_path(entry.path, root))
                if len(radiographs) == before:
                    raise _empty_class(root / split / name, classes)
    return sorted(radiographs, key=lambda radiograph: radiograph.path), junk


@contextmanager
def readable_entries() -> Iterator[None]:
    """Convert OSErrors of data set entries that cannot be listed or read to DataErrors."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{error.filename} cannot be read ({error.strerror}). Each entry of a data set must be a readable file or "
            "folder, or a link to one. Fix its permissions or its link, or delete it."
        ) from error


def label_subtypes(radiographs: Sequence[Radiograph], classes: Sequence[str]) -> tuple[list[Radiograph], list[str]]:
    """Label radiographs of the positive class by subtype; return the radiographs and the three classes."""
    unnamed = [image.path for image in radiographs if image.label and image.subtype not in SUBTYPES]
    if unnamed:
        raise DataError(
            f"data.task=subtype reads subtypes from file names such as person1_virus_6.jpeg, but {len(unnamed)} images "
            f"of {classes[1]} have no such name, for example {unnamed[0]}. Rename them, or use data.task=pneumonia."
        )
    labelled = [replace(image, label=1 + SUBTYPES.index(image.subtype) if image.label else 0) for image in radiographs]
    return labelled, [classes[0], *(name.upper() for name in SUBTYPES)]


def count_classes(radiographs: Iterable[Radiograph], classes: Sequence[str]) -> str:
    """Return the number of images of each class as text, such as `1341 NORMAL, 3875 PNEUMONIA`."""
    counts = Counter(radiograph.label for radiograph in radiographs)
    return ", ".join(f"{counts[label]} {name}" for label, name in enumerate(classes))


def indices_of(radiographs: Iterable[Radiograph], among: Sequence[Radiograph]) -> list[int]:
    """Return the index in `among` of each radiograph, matched by path."""
    index = {radiograph.path: i for i, radiograph in enumerate(among)}
    return [index[radiograph.path] for radiograph in radiographs]


def data_hash(radiographs: Iterable[Radiograph]) -> str:
    """Compute the hash of the sizes and paths of all files, 16 hex digits; paths contain split and class."""
    digest = hashlib.sha256()
    for radiograph in radiographs:
        digest.update(f"{radiograph.path} {radiograph.size}\n".encode())
    return digest.hexdigest()[:16]


def file_path(root: Path, path: str) -> Path:
    """Return the path on the disk of a radiograph with the escaped relative path `path`."""
    return root / unescape_path(path)


def relative_path(path: str, root: Path) -> str:
    """Return the path of a file relative to `root`, as escaped text with forward slashes."""
    return escape_path(os.path.relpath(path, root).replace(os.sep, "/"))


def read_name(name: str) -> tuple[str | None, str]:
    """Parse a file name: return the patient, if any, and the subtype (bacterial, viral or none)."""
    match = _PNEUMONIA.match(name) or _NORMAL.match(name)
    groups = match.groupdict() if match else {}
    return groups.get("patient"), _SUBTYPES.get(groups.get("subtype", ""), "none")


def walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield all files in a folder and its sub-folders, following links."""
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from walk(Path(entry.path))
            else:
                yield entry


def is_image(entry: os.DirEntry[str]) -> bool:
    """Return whether a file is an image by its suffix and is neither hidden nor empty.

    A file without a suffix of letters, as scanners write them, is an image if its content is DICOM.
    """
    if entry.name.startswith(".") or "__MACOSX" in entry.path:
        return False
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix in SUFFIXES or suffix in Image.registered_extensions():
        return entry.stat().st_size > 0
    return not suffix[1:].isalpha() and entry.name != "DICOMDIR" and _is_dicom_file(entry)


def _is_dicom_file(entry: os.DirEntry[str]) -> bool:
    if entry.is_file():  # opening a pipe would block
        with suppress(PermissionError), open(entry.path, "rb") as file:
            return is_dicom(file.read(HEAD_BYTES))
    return False


def _make_radiograph(entry: os.DirEntry[str], root: Path, split: str, label: int) -> Radiograph:
    patient, subtype = read_name(entry.name)
    patient = escape_path(entry.name) if patient is None else patient
    status = entry.stat()
    path = relative_path(entry.path, root)
    return Radiograph(path, label, subtype, patient, split, status.st_size, status.st_mtime_ns)


def _empty_class(folder: Path, classes: Sequence[str]) -> DataError:
    state = "has no images"
    if not folder.is_dir():
        existing = sorted(path.name for path in folder.parent.iterdir() if path.is_dir())
        state = f"does not exist (existing folders: {', '.join(existing) or 'none'})"
    return DataError(
        f"{folder} {state}. Each of train/, val/ and test/ needs at least one image of each class, in a folder with "
        "the name of the class. Add images, or set data.classes=[...] to the existing folders (now "
        f"[{', '.join(classes)}])."
    )
