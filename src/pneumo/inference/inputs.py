"""Input files for prediction: discovery and threaded reading."""

from __future__ import annotations

import glob
import os
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image

from pneumo.common.input_format import InputFormat
from pneumo.data.decoder_limits import MEMORY_BUDGET
from pneumo.data.duplicates import SIDE
from pneumo.data.folder_tree import is_hidden
from pneumo.data.grey import square
from pneumo.data.radiograph import examine_radiograph
from pneumo.errors import ConfigError, DataError
from pneumo.inference.backend import Images, Rules

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_DIGITS = re.compile("([0-9]+)")
_MAX_PREVIEW_SIDE = 1024  # pixels


def find_inputs(inputs: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """List the input files in the order of the inputs; files of a folder are in natural sort order.

    Folders are searched recursively for files of any suffix; symbolic links are followed. Hidden files, hidden folders
    and `__MACOSX` are skipped unless an input names them. Duplicates, including links to the same file, are removed.

    Args:
        inputs: Files, folders, and patterns with `*`, `?`, `[...]` and the recursive `**`.

    Raises:
        ConfigError: An input matches no file, or a folder cannot be listed.
    """
    unique: dict[str, Path] = {}
    for item in inputs:
        files = [file for path in _match(os.fspath(item)) for file in (_walk(path) if path.is_dir() else [path])]
        if not files:
            raise ConfigError(
                f"{str(item)!r} matches no file. Use a file, a folder that contains files, or a pattern such as "
                "'scans/*.dcm'."
            )
        for file in files:
            unique.setdefault(os.path.realpath(file), file)
    return list(unique.values())


def _match(item: str) -> list[Path]:
    """Return the path if it exists, else the paths that match it as a pattern."""
    pattern = Path(item)
    if os.path.lexists(item):
        return [pattern]
    if not glob.has_magic(item):
        return []
    try:  # Path.glob does not follow links in **; glob.glob does and can loop
        matches = list(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
    except ValueError:  # invalid patterns, such as **x
        return []
    return sorted(
        (path for path in matches if not any(map(is_hidden, {*path.parts} - {*pattern.parts}))), key=_sort_key
    )


def _walk(path: Path) -> list[Path]:
    files: list[Path] = []
    visited: set[str] = set()  # links can form cycles
    for folder, subfolders, names in os.walk(path, followlinks=True, onerror=_raise_unlistable):
        real = os.path.realpath(folder)
        subfolders[:] = [] if real in visited else sorted(name for name in subfolders if not is_hidden(name))
        files += (Path(folder, name) for name in names if real not in visited and not is_hidden(name))
        visited.add(real)
    return sorted(files, key=_sort_key)


def _sort_key(path: Path) -> list[list[str | int]]:
    """Return the key that sorts scan2 before scan10."""
    parts = (_DIGITS.split(name.casefold()) for name in path.parts)
    return [[int(part) if i % 2 else part for i, part in enumerate(name)] for name in parts]


def _raise_unlistable(error: OSError) -> None:
    raise ConfigError(
        f"{error.filename} cannot be listed ({error.strerror}): input folders must be readable. Fix its permissions or "
        "use other inputs."
    ) from error


@dataclass(frozen=True)
class InputImage:
    """An input file: the image that was read from it, or the reason why it is unreadable."""

    path: Path  # `-` for content without a file
    pixels: Images | None = None  # the network's input, (1, S, S)
    notes: tuple[str, ...] = ()  # remarks on the file that make a prediction less reliable
    preview: Image.Image | None = None  # downscaled to at most _MAX_PREVIEW_SIDE per side; None unless requested
    thumbnail: Images | None = (
        None  # square of `pneumo.data.duplicates.SIDE` pixels, (SIDE, SIDE); None unless requested
    )
    size: tuple[int, int] = (0, 0)  # width and height of the whole image in pixels
    storage: str = ""  # format and mode of the file, such as JPEG L
    error: str | None = None  # reason why the file is unreadable, as a predicate; then only the path is set in addition


def read_input(source: Path | bytes, rules: Rules, keep_preview: bool, keep_thumbnail: bool = False) -> InputImage:
    """Read an image file, or its content as bytes, and convert it to the network's input.

    Args:
        source: Path of the file, or its content.
        rules: Rules of the network.
        keep_preview: Whether to keep a downscaled copy of the image.
        keep_thumbnail: Whether to keep the thumbnail by which near-duplicates are detected.
    """
    path = source if isinstance(source, Path) else Path("-")
    with MEMORY_BUDGET.reservation():
        try:
            (image, notes), storage = examine_radiograph(source)
        except DataError as error:
            return InputImage(path, error=str(error))
        size, pixels = image.size, square(image, rules.input_format)[None]
        thumbnail = square(image, InputFormat(SIDE)) if keep_thumbnail else None
        if keep_preview:
            image.thumbnail((_MAX_PREVIEW_SIDE, _MAX_PREVIEW_SIDE), Image.Resampling.BICUBIC)
    preview = image if keep_preview else None
    return InputImage(path, pixels, notes, preview, thumbnail, size, f"{storage.format} {storage.mode}")


def read_inputs(
    paths: Iterable[Path],
    rules: Rules,
    keep_previews: bool,
    threads: int,
    prefetch: int,
    keep_thumbnails: bool = False,
) -> Generator[InputImage]:
    """Read files with a thread pool and yield them in order.

    Pillow and pydicom release the GIL while they decode.

    Args:
        paths: The files.
        rules: Rules of the network.
        keep_previews: Whether to keep downscaled copies of the images.
        threads: Number of threads. Each holds one image at full size; `MEMORY_BUDGET` limits their memory.
        prefetch: Number of files to read in advance.
        keep_thumbnails: Whether to keep thumbnails for the search for near-duplicates.
    """
    return map_ahead(lambda path: read_input(path, rules, keep_previews, keep_thumbnails), paths, threads, prefetch)


def map_ahead(
    function: Callable[[_Item], _Result], items: Iterable[_Item], threads: int, prefetch: int
) -> Generator[_Result]:
    """Apply a function to items with a thread pool and yield the results in order.

    Args:
        function: The function; at most `threads` calls run at once.
        items: The items.
        threads: Number of threads.
        prefetch: Number of results to compute in advance, which bounds the memory.
    """
    pool = ThreadPoolExecutor(threads, "map_ahead")
    pending: deque[Future[_Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > prefetch:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:  # also when the generator is closed early
        pool.shutdown(cancel_futures=True)
