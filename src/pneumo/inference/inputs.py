"""Inputs of prediction: files, folders and patterns, read by threads in order."""

from __future__ import annotations

import glob
import os
import re
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pneumo.data.decoder_limits import BUDGET
from pneumo.data.folder_tree import is_hidden
from pneumo.data.grey import square
from pneumo.data.radiograph import read_radiograph
from pneumo.errors import ConfigError, DataError
from pneumo.inference.backend import Images, Rules

_DIGITS = re.compile("([0-9]+)")
_LONGEST = 1024  # pixels of an image that is shown


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
    return sorted((path for path in matches if not any(map(is_hidden, {*path.parts} - {*pattern.parts}))), key=_order)


def _walk(path: Path) -> list[Path]:
    files: list[Path] = []
    visited: set[str] = set()  # links can make circles
    for folder, below, names in os.walk(path, followlinks=True, onerror=_refuse):
        real = os.path.realpath(folder)
        below[:] = [] if real in visited else sorted(name for name in below if not is_hidden(name))
        files += (Path(folder, name) for name in names if real not in visited and not is_hidden(name))
        visited.add(real)
    return sorted(files, key=_order)


def _order(path: Path) -> list[list[str | int]]:
    """Sort film2 before film10."""
    parts = (_DIGITS.split(name.casefold()) for name in path.parts)
    return [[int(part) if i % 2 else part for i, part in enumerate(name)] for name in parts]


def _refuse(error: OSError) -> None:
    raise ConfigError(
        f"{error.filename} cannot be listed ({error.strerror}). Each folder among the inputs must be readable: mend "
        "its permissions, or name other inputs."
    ) from error


@dataclass(frozen=True)
class InputImage:
    """A radiograph that was read, or the reason why it was not."""

    path: Path  # the file's; `-` of one that was given by its content
    square: Images | None = None  # the network's input, (1, S, S)
    notes: tuple[str, ...] = ()  # what may make a prediction doubtful
    # A copy at its own aspect, no side longer than _LONGEST; None unless it was asked for.
    shown: Image.Image | None = None
    error: str | None = None  # why it cannot be read, as a predicate; then all else is missing


def read_input(source: Path | bytes, rules: Rules, show: bool) -> InputImage:
    """Read a file, or its content, as the input of a network with these rules; with `show` keep a copy to look at."""
    path = source if isinstance(source, Path) else Path("-")
    with BUDGET.reservation():
        try:
            image, notes = read_radiograph(source)
        except DataError as error:
            return InputImage(path, error=str(error))
        pixels = square(image, rules.image_size, rules.crop_pct)[None]
        if show:
            image.thumbnail((_LONGEST, _LONGEST), Image.Resampling.BICUBIC)
    return InputImage(path, pixels, notes, image if show else None)


def read_inputs(paths: Iterable[Path], rules: Rules, show: bool, threads: int, ahead: int) -> Generator[InputImage]:
    """Read files in order; at full size each thread has one in memory, as far as `BUDGET` allows.

    Pillow and pydicom let other threads work while they decode. `ahead` files are read before they are asked for.
    """
    pool = ThreadPoolExecutor(threads, "films")
    waiting: deque[Future[InputImage]] = deque()
    try:
        for path in paths:
            waiting.append(pool.submit(read_input, path, rules, show))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also when the reader of this goes away
        pool.shutdown(cancel_futures=True)
