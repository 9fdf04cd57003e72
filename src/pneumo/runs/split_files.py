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
SIZE = "size"  # of the file in bytes
TABLE_HEADER = (*HEADER, "site", SIZE)  # of runs on a table; its free columns follow
_RESERVED = {*TABLE_HEADER, "label", "probability", "prediction"}  # other names in splits.csv and predictions.csv
_REMEDY = f"If you have the images of the run, set {ROOT_VARIABLE} to the folder of their data set."


def write_splits(path: Path, splits: Splits, classes: Sequence[str], extra: Sequence[str] | None = None) -> None:
    """Write one row per radiograph: path, split, class, subtype, patient; with a table, also site, size and the rest.

    Args:
        path: File to write.
        splits: Radiographs by split.
        classes: Names of the classes.
        extra: Names of the free columns of the table; None if the data set is a folder tree.
    """
    header = HEADER if extra is None else (*TABLE_HEADER, *free_columns(extra, ()))
    rows = (
        (image.path, name, classes[image.label], image.subtype, image.patient, image.site, image.size, *image.extra)
        for name, images in splits.items()
        for image in images
    )
    write_text(path, format_rows([header, *(row[: len(header)] for row in rows)]))


def free_columns(names: Sequence[str], classes: Sequence[str]) -> list[str]:
    """Return the names of a table's free columns in a run's files; `table_` precedes names that the files use.

    Args:
        names: Names in the table.
        classes: Names of the classes, which may be columns of the file.
    """
    used = {*_RESERVED, *classes}
    columns: list[str] = []
    for name in names:
        while name in used or name.startswith("logit_margin"):
            name = f"table_{name}"
        columns.append(name)
        used.add(name)
    return columns


def read_splits(folder: Path) -> list[dict[str, str]]:
    """Read the rows of a run's splits.csv; raise a ConfigError if it is missing or damaged."""
    path = folder / "splits.csv"
    try:
        header, rows = read_csv(path)
    except (OSError, PlainDataError) as error:
        raise ConfigError(f"{path} cannot be read ({error}). Restore the file.") from error
    if not {*HEADER} <= {*header} or len({*header}) < len(header):
        raise _damaged(path, f"its columns must be {', '.join(HEADER)}, each once")
    if not rows:
        raise _damaged(path, "it has no images")
    lines = [dict(zip(header, row, strict=True)) for row in rows]
    for number, line in enumerate(lines, 2):
        if line["split"] not in SPLITS:
            raise _damaged(path, f"line {number} has the unknown split {line['split'][:40]!r}")
        if empty := [name for name in HEADER if not line[name]]:
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


def find_table_images(run: Path, root: Path, paths: Sequence[str]) -> list[Path]:
    """Find the files of images of a run on a table, in PNEUMO_DATA_ROOT or else in `root`.

    A folder matches if it has all of these files with the sizes in splits.csv. Only in PNEUMO_DATA_ROOT may links lead
    out of the folder. Arguments and errors are those of `find_images`.
    """
    if outside := [path for path in paths if not _is_inside(path)]:
        raise DataError(_outside_message(outside, paths, root))
    size = {line["path"]: line.get(SIZE) for line in read_splits(run)}
    variable = os.environ.get(ROOT_VARIABLE)
    for folder, trusted in ((Path(variable), True), (root, False)) if variable else ((root, False),):
        files = [file_path(folder, path) for path in paths]
        if all(
            _has_size(file, size.get(path)) and (trusted or file.resolve().is_relative_to(folder.resolve()))
            for file, path in zip(files, paths, strict=True)
        ):
            return files
    raise DataError(f"{root} does not contain the images of the run, or they have changed. {_REMEDY}")


def _has_size(file: Path, size: str | None) -> bool:
    with suppress(OSError):  # an inaccessible file counts as missing
        return file.is_file() and str(file.stat().st_size) == size
    return False


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
