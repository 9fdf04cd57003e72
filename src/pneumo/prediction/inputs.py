"""From what a user names to files: files, folders and patterns that the shell left alone."""

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from pneumo.errors import ConfigError

_DIGITS = re.compile("([0-9]+)")


def find_inputs(inputs: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """List the files that are meant, in the order in which they are named, and within a folder by number and name.

    Of folders all files count, whatever their suffix, and those of the folders below, links included; hidden ones and
    `__MACOSX` do not, unless they are named. A file that is meant twice, also through links, is listed once.

    Args:
        inputs: Files, folders, and patterns with `*`, `?`, `[...]` and `**` for any folders.

    Raises:
        ConfigError: An input matches nothing, or a folder cannot be listed.
    """
    found: dict[str, Path] = {}
    for given in inputs:
        files = [file for path in _match(os.fspath(given)) for file in (_walk(path) if path.is_dir() else [path])]
        if not files:
            raise ConfigError(
                f"{str(given)!r} matches no file. Inputs are files, folders with files in them, and patterns such as "
                "'scans/*.dcm': mend the path."
            )
        for file in files:
            found.setdefault(os.path.realpath(file), file)
    return list(found.values())


def _match(given: str) -> list[Path]:
    """Return the path itself where there is one, or those that match the pattern."""
    pattern = Path(given)
    if os.path.lexists(given):
        return [pattern]
    if not glob.has_magic(given):
        return []
    try:  # of links to folders ** follows none, unlike that of glob.glob, which can run in circles
        matches = list(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
    except ValueError:  # **x
        return []
    return sorted((path for path in matches if not any(map(_is_hidden, {*path.parts} - {*pattern.parts}))), key=_order)


def _walk(path: Path) -> list[Path]:
    files: list[Path] = []
    visited: set[str] = set()  # links can make circles
    for folder, below, names in os.walk(path, followlinks=True, onerror=_refuse):
        real = os.path.realpath(folder)
        below[:] = [] if real in visited else sorted(name for name in below if not _is_hidden(name))
        files += (Path(folder, name) for name in names if real not in visited and not _is_hidden(name))
        visited.add(real)
    return sorted(files, key=_order)


def _is_hidden(name: str) -> bool:
    return name == "__MACOSX" or (name.startswith(".") and name != "..")


def _order(path: Path) -> list[list[str | int]]:
    """Sort film2 before film10."""
    parts = (_DIGITS.split(name.casefold()) for name in path.parts)
    return [[int(part) if i % 2 else part for i, part in enumerate(name)] for name in parts]


def _refuse(error: OSError) -> None:
    raise ConfigError(
        f"{error.filename} cannot be listed ({error.strerror}). Each folder among the inputs must be readable: mend "
        "its permissions, or name other inputs."
    ) from error
