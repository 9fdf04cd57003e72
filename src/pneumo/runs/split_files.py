"""The file splits.csv, and the search for the images that it names.

A run's folder may come from elsewhere and name any file of this machine. A report is shown to others, so it must only
contain images that the run could have used.
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
_HEAD = ("path", "split", "class", "subtype", "patient")
_REMEDY = f"If you have the images that the run was tested on, name the folder of their data set in {ROOT_VARIABLE}."


def write_splits(path: Path, splits: Splits, classes: Sequence[str]) -> None:
    """Write a CSV with a line for each radiograph: path, split, class, subtype, patient."""
    rows = (
        (image.path, name, classes[image.label], image.subtype, image.patient)
        for name, images in splits.items()
        for image in images
    )
    write_text(path, format_rows([_HEAD, *rows]))


def read_splits(folder: Path) -> list[dict[str, str]]:
    """Read a run's splits.csv, line by line; raise a ConfigError if it is missing or damaged."""
    path = folder / "splits.csv"
    try:
        head, rows = read_csv(path)
    except (OSError, PlainDataError) as error:
        raise ConfigError(f"{path}, which a run leaves, cannot be read ({error}): put it back.") from error
    if sorted(head) != sorted(_HEAD):
        raise _damaged(path, f"its columns are not {', '.join(_HEAD)}")
    if not rows:
        raise _damaged(path, "it has no images")
    lines = [dict(zip(head, row, strict=True)) for row in rows]
    for number, line in enumerate(lines, 2):
        if line["split"] not in SPLITS:
            raise _damaged(path, f"line {number} names the split {line['split'][:40]!r}")
        if empty := [name for name, value in line.items() if not value]:
            raise _damaged(path, f"line {number} has no {empty[0]}")
    if len({line["path"] for line in lines}) < len(lines):
        raise _damaged(path, "it has an image twice")
    return lines


def _damaged(path: Path, reason: str) -> ConfigError:
    return ConfigError(f"{path} is damaged ({reason}): put it back as the run left it.")


def find_images(run: Path, root: Path, classes: Sequence[str], recorded: str, paths: Sequence[str]) -> list[Path]:
    """Return the files of a run's images.

    They are those of the folder that PNEUMO_DATA_ROOT names, or of `root`, whichever has the data that the run
    recorded, apart from images added later. If neither has, the named one is taken with a warning. Links that leave the
    folder are followed only in the named one. `recorded` is the run's data_hash; `paths` are relative to `root`, as
    text.

    Raises:
        DataError: The data set is another one, or an image is not in it.
    """
    variable = os.environ.get(ROOT_VARIABLE)
    named = _locate(Path(variable)) if variable else None
    folders = [folder for folder in (named, _locate(root)) if folder is not None]
    if not folders:
        raise DataError(f"{root} holds no data set. {_REMEDY}")
    if strange := [path for path in paths if not _is_inside(path)]:
        raise DataError(_outside(strange, paths, folders[-1]))
    if strange := [name for name in classes if name in ("", ".", "..") or os.path.basename(name) != name]:
        raise DataError(f"data.classes has {strange[0]}, which is no name of a folder.")
    matches = ((folder, _match(run, folder, classes, recorded)) for folder in folders)
    found, known = next((match for match in matches if match[1]), (named, set()))
    if found is None:
        raise DataError(f"the data in {folders[-1]} are not those that the run recorded. {_REMEDY}")
    files = [file_path(found, path) for path in paths]
    if named is not None and found.samefile(named):
        if not known:
            _log.warning("%s, which %s names, does not hold the data that the run recorded.", found, ROOT_VARIABLE)
        return files
    home = found.resolve()
    inside = [path in known and file.resolve().is_relative_to(home) for path, file in zip(paths, files, strict=True)]
    if strange := [path for path, is_inside in zip(paths, inside, strict=True) if not is_inside]:
        raise DataError(f"{_outside(strange, paths, found)} {_REMEDY}")
    return files


def _locate(root: Path) -> Path | None:
    with suppress(OSError):  # a folder that is denied, as in another user's home, is as good as none
        return locate(root)
    return None


def _match(run: Path, root: Path, classes: Sequence[str], recorded: str) -> set[str]:
    """Return the paths of the images that have the recorded hash together; none if there are no such images."""
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


def _outside(strange: Sequence[str], paths: Sequence[str], root: Path) -> str:
    return (
        f"{len(strange)} of the {len(paths)} images lie outside of {root}, or are not in it, such as "
        f"{strange[0][:200]}."
    )
