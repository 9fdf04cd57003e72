"""Reader and writer of splits.csv, and the search for the images of a run.

A run folder may come from another machine and contain any path. Reports are shown to others, so they must only contain
images that the run could have used.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from pneumo.common.files import unescape_path, write_text
from pneumo.common.plain_data import PlainDataError, format_rows, read_csv
from pneumo.data.folder_tree import SPLITS
from pneumo.data.index import ROOT_VARIABLE, data_hash, file_path, locate, scan_radiographs
from pneumo.data.splits import Splits
from pneumo.errors import ConfigError, DataError

_log = logging.getLogger(__name__)
HEADER = ("path", "split", "class", "subtype", "patient")
_REMEDY = f"If you have the test images of the run, set {ROOT_VARIABLE} to the folder of their data set."


def write_splits(path: Path, splits: Splits, classes: Sequence[str]) -> None:
    """Write one row per radiograph: path, split, class, subtype, patient."""
    rows = (
        (image.path, name, classes[image.label], image.subtype, image.patient)
        for name, images in splits.items()
        for image in images
    )
    write_text(path, format_rows([HEADER, *rows]))


def read_splits(folder: Path) -> list[dict[str, str]]:
    """Read the rows of a run's splits.csv; raise a ConfigError if it is missing or damaged."""
    path = folder / "splits.csv"
    try:
        header, rows = read_csv(path)
    except (OSError, PlainDataError) as error:
        raise ConfigError(f"{path} cannot be read ({error}). Restore the file.") from error
    if sorted(header) != sorted(HEADER):
        raise _damaged(path, f"its columns must be {', '.join(HEADER)}")
    if not rows:
        raise _damaged(path, "it has no images")
    lines = [dict(zip(header, row, strict=True)) for row in rows]
    for number, line in enumerate(lines, 2):
        if line["split"] not in SPLITS:
            raise _damaged(path, f"line {number} has the unknown split {line['split'][:40]!r}")
        if empty := [name for name, value in line.items() if not value]:
            raise _damaged(path, f"line {number} has no {empty[0]}")
    if len({line["path"] for line in lines}) < len(lines):
        raise _damaged(path, "it has a duplicate image")
    return lines


def _damaged(path: Path, reason: str) -> ConfigError:
    return ConfigError(f"{path} is damaged ({reason}). Restore the original file.")


def find_images(run: Path, root: Path, classes: Sequence[str], recorded: str, paths: Sequence[str]) -> list[Path]:
    """Find the files of a run's images, in PNEUMO_DATA_ROOT or else in `root`.

    A folder matches if it contains the data that the run recorded; images added later are ignored. If no folder
    matches, PNEUMO_DATA_ROOT is used with a warning. Only there may links lead out of the folder.

    Args:
        run: Run folder.
        root: Data root that the run recorded.
        classes: Names of the class folders.
        recorded: The run's data_hash.
        paths: Paths of the images relative to the data root, as text.

    Raises:
        DataError: No folder matches, or an image is not in the data set.
    """
    variable = os.environ.get(ROOT_VARIABLE)
    own = _locate(Path(variable)) if variable else None
    folders = [folder for folder in (own, _locate(root)) if folder is not None]
    if not folders:
        raise DataError(f"{root} contains no data set. {_REMEDY}")
    if outside := [path for path in paths if not _is_inside(path)]:
        raise DataError(_outside_message(outside, paths, folders[-1]))
    if invalid := [name for name in classes if name in ("", ".", "..") or os.path.basename(name) != name]:
        raise DataError(f"data.classes has {invalid[0]}, which is not the name of a folder.")
    matches = ((folder, _match(run, folder, classes, recorded)) for folder in folders)
    folder, known = next((match for match in matches if match[1]), (own, set()))
    if folder is None:
        raise DataError(f"The data in {folders[-1]} differ from the data of the run. {_REMEDY}")
    files = [file_path(folder, path) for path in paths]
    if own is not None and folder.samefile(own):
        if not known:
            _log.warning("The data in %s (%s) differ from the data of the run.", folder, ROOT_VARIABLE)
        return files
    resolved = folder.resolve()
    inside = [
        path in known and file.resolve().is_relative_to(resolved) for path, file in zip(paths, files, strict=True)
    ]
    if outside := [path for path, is_inside in zip(paths, inside, strict=True) if not is_inside]:
        raise DataError(f"{_outside_message(outside, paths, folder)} {_REMEDY}")
    return files


def _locate(root: Path) -> Path | None:
    with suppress(OSError):  # an inaccessible folder counts as missing
        return locate(root)
    return None


def _match(run: Path, root: Path, classes: Sequence[str], recorded: str) -> set[str]:
    """Return the paths of the images in `root` if their data_hash is the recorded one; else an empty set."""
    try:
        radiographs, _ = scan_radiographs(root, classes)
    except DataError:
        return set()
    if data_hash(radiographs) != recorded:  # images may have been added
        with suppress(ConfigError):
            listed = {line["path"] for line in read_splits(run)}
            radiographs = [radiograph for radiograph in radiographs if radiograph.path in listed]
    return {radiograph.path for radiograph in radiographs} if data_hash(radiographs) == recorded else set()


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(unescape_path(path).replace("\\", "/"))
    return not parts.is_absolute() and ".." not in parts.parts and not Path(unescape_path(path)).drive


def _outside_message(outside: Sequence[str], paths: Sequence[str], root: Path) -> str:
    return f"{len(outside)} of the {len(paths)} images are not in {root}. The first: {outside[0][:200]}."
