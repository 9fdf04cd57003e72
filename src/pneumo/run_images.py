"""The images that the page of a run may show: those of the data set that the run was tested on, and no other file.

A run's folder may come from anywhere, and names files of this machine in its configuration and its predictions. A page
is shown to others, so that it must not carry what the run could not have had.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from pneumo.data.index import data_hash, file_path, locate, scan_radiographs
from pneumo.errors import DataError
from pneumo.files import unescape_path

_VARIABLE = "PNEUMO_DATA_ROOT"
_REMEDY = f"If these are the images that you want to see, name their folder in {_VARIABLE}."


def find_images(root: Path, classes: Sequence[str], recorded: str, paths: Sequence[str]) -> list[Path]:
    """Return the files of a run's images.

    The data set must have the hash that the run recorded, or be the one that PNEUMO_DATA_ROOT names. Links that leave
    it are followed in the latter case only.

    Args:
        root: The data set's folder.
        classes: Names of the class folders.
        recorded: The run's data_hash.
        paths: Of the images, relative to `root`, as text.

    Raises:
        DataError: The data set is another one, or an image is not in it.
    """
    if (found := locate(root)) is None:
        raise DataError(f"{root} holds no data set.")
    if strange := [path for path in paths if not _is_inside(path)]:
        raise DataError(_outside(strange, paths, found))
    files = [file_path(found, path) for path in paths]
    if _is_named(found):
        return files
    if strange := [name for name in classes if name in ("", ".", "..") or os.path.basename(name) != name]:
        raise DataError(f"data.classes has {strange[0]}, which is no name of a folder.")
    radiographs, _ = scan_radiographs(found, classes)
    if data_hash(radiographs) != recorded:
        raise DataError(f"the data in {found} are not those that the run recorded. {_REMEDY}")
    known, home = {radiograph.path for radiograph in radiographs}, found.resolve()
    if strange := [path for path, file in zip(paths, files, strict=True) if not _lies(path, file, known, home)]:
        raise DataError(_outside(strange, paths, found))
    return files


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(unescape_path(path).replace("\\", "/"))
    return not parts.is_absolute() and ".." not in parts.parts and not Path(unescape_path(path)).drive


def _lies(path: str, file: Path, known: set[str], home: Path) -> bool:
    return path in known and file.resolve().is_relative_to(home)


def _is_named(root: Path) -> bool:
    named = os.environ.get(_VARIABLE)
    folder = locate(Path(named)) if named else None
    return folder is not None and folder.samefile(root)


def _outside(strange: Sequence[str], paths: Sequence[str], root: Path) -> str:
    return (
        f"{len(strange)} of the {len(paths)} images lie outside of {root}, or are not in it, such as "
        f"{strange[0][:200]}."
    )
