"""Disk cache of arrays that all runs share. Interrupted writes resume, and any entry may be deleted.

An entry is a folder, CACHE/KIND/KEY. It contains array.npy, about.json (the recipe's provenance) and
notes.json (notes on individual images). During a write, array.npy.part takes the place of array.npy, and rows.txt
contains the number of rows that are flushed to disk.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import EDQUOT, ENOSPC
from io import BytesIO
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from filelock import Timeout

from pneumo.common.disk import is_at
from pneumo.common.files import flush, lock_of, require_space, write_text
from pneumo.common.plain_data import PlainDataError, hash_plain, read_json
from pneumo.common.terminal import track
from pneumo.errors import CacheError

_log = logging.getLogger(__name__)
Array = npt.NDArray[Any]
Notes = dict[str, list[str]]  # image path -> notes
_NOTES = "notes.json"
_MAX_NOTES_BYTES = 1 << 28
FLUSH_INTERVAL = 1.0  # seconds; a killed process loses at most about this much work


@dataclass(frozen=True)
class Recipe:
    """Specification of a cached array; each field except `title` is part of the key."""

    kind: str  # one of `pneumo.data.cache_inventory.KINDS`
    provenance: dict[str, Any]  # plain values that fully determine the array's content; stored in about.json
    shape: tuple[int, ...]  # of the whole array
    dtype: str  # NumPy dtype name
    title: str  # of the progress bar and log lines, such as `Decoding images`

    @property
    def key(self) -> str:
        """Hash of everything that determines the content, 16 hex digits."""
        return hash_plain([self.kind, self.provenance, self.shape, self.dtype])


def find(cache: Path, recipe: Recipe) -> Array | None:
    """Open a cached array, memory-mapped and read-only; return None if it is missing or damaged."""
    path = cache / recipe.kind / recipe.key / "array.npy"
    try:
        array: Array = np.load(path, mmap_mode="r")
        if (array.shape, array.dtype) != (recipe.shape, np.dtype(recipe.dtype)):
            raise ValueError("shape or dtype in its header is wrong")
    except FileNotFoundError:
        return None
    except (ValueError, EOFError) as error:
        _log.warning("%s is damaged (%s) and will be recomputed.", path, error)
        return None
    with suppress(OSError):  # the cache may belong to another user and be read-only
        os.utime(path.parent)  # `pneumo cache clear --unused` reads this time
    return array


def find_or_build(
    cache: Path, recipe: Recipe, blocks: Callable[[int], Iterator[Array]], notes: Notes | None = None
) -> Array:
    """Open a cached array; compute it first if it is missing.

    Among concurrent processes, one computes the array and the others wait. Finished rows survive a kill: the next call
    resumes after them. An entry that is deleted during the computation is computed again.

    Args:
        cache: The cache folder.
        recipe: The array's specification.
        blocks: Function that takes a start row and yields the rows from it on, in blocks. The start row is 0 or the end
            of a block of an earlier call, so a block may depend on its first row. Before each yield, the function may
            add notes on the images to `notes`.
        notes: Dictionary to which the entry's stored notes are added.

    Returns:
        The array, memory-mapped and read-only.

    Raises:
        CacheError: The disk is full or cannot be written.
    """
    folder = cache / recipe.kind / recipe.key
    notes = {} if notes is None else notes
    try:
        while (array := find(cache, recipe)) is None:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder, recipe.title):
                if (array := find(cache, recipe)) is None and _build(folder, recipe, blocks, notes):
                    array = find(cache, recipe)  # under the lock, so that `pneumo cache clear` cannot delete it first
            if array is not None:
                break
            _log.warning("%s: %s was deleted during the computation; starting again.", recipe.title, folder)
    except OSError as error:
        raise _explain(error, folder, recipe) from error
    notes |= _read_notes(folder)
    return array


@contextmanager
def locked(folder: Path, title: str) -> Iterator[None]:
    """Hold an entry's lock; log a message if another process holds it."""
    lock = lock_of(folder)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _log.info("%s: waiting for another process to finish (%s)", title, folder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build(folder: Path, recipe: Recipe, blocks: Callable[[int], Iterator[Array]], notes: Notes) -> bool:
    """Compute an array; return False if its folder was deleted during the computation."""
    folder.mkdir(exist_ok=True)  # it may have been deleted since the caller created it
    part, rows = folder / "array.npy.part", folder / "rows.txt"
    header = _header(recipe)
    row_bytes = prod(recipe.shape[1:]) * np.dtype(recipe.dtype).itemsize
    start = _count_flushed_rows(part, rows, len(header), row_bytes)
    if not 0 < start <= recipe.shape[0]:  # out of range if rows.txt is damaged
        start = 0
        rows.unlink(missing_ok=True)
        (folder / _NOTES).unlink(missing_ok=True)
    notes |= _read_notes(folder)
    write_text(folder / "about.json", json.dumps(recipe.provenance, indent=2) + "\n")
    with part.open("r+b" if start else "wb") as file:
        require_space(folder, len(header) + (recipe.shape[0] - start) * row_bytes)
        file.write(header)
        file.seek(len(header) + start * row_bytes)
        file.truncate()
        done, flushed = start, time.monotonic()
        content = blocks(start)  # before `track`, since it may first compute another array with its own progress bar
        with track(recipe.title, recipe.shape[0], start) as update:
            for block in content:
                file.write(np.ascontiguousarray(block, recipe.dtype).tobytes())
                done += len(block)
                update(done)
                if time.monotonic() - flushed > FLUSH_INTERVAL:
                    if not _flush_rows(file, part, notes):
                        return False
                    write_text(rows, str(done))
                    flushed = time.monotonic()
        if done != recipe.shape[0]:
            raise RuntimeError(f"{done} rows were computed instead of {recipe.shape[0]}")
        if not _flush_rows(file, part, notes):
            return False
    part.replace(folder / "array.npy")
    flush(folder)
    rows.unlink(missing_ok=True)
    return True


def _read_notes(folder: Path) -> Notes:
    try:
        notes = read_json(folder / _NOTES, _MAX_NOTES_BYTES)
    except (FileNotFoundError, PlainDataError):  # an entry without notes has no such file
        return {}
    valid = isinstance(notes, dict) and all(
        isinstance(each, list) and all(isinstance(note, str) for note in each) for each in notes.values()
    )
    return notes if valid else {}


def _flush_rows(file: IO[bytes], path: Path, notes: Notes) -> bool:
    """Flush rows and notes to disk; return whether the file still exists at its path."""
    file.flush()
    os.fsync(file.fileno())
    exists = is_at(file.fileno(), path)
    if exists and notes:
        write_text(path.parent / _NOTES, json.dumps(notes, indent=2) + "\n")
    return exists


def _count_flushed_rows(part: Path, rows: Path, header_bytes: int, row_bytes: int) -> int:
    """Return the number of rows that are known to be on disk; 0 if the two files are inconsistent."""
    try:
        count = int(rows.read_text(encoding="ascii"))
        return count if part.stat().st_size >= header_bytes + count * row_bytes else 0
    except (FileNotFoundError, ValueError):
        return 0


def _header(recipe: Recipe) -> bytes:
    stream = BytesIO()
    description = {"descr": np.dtype(recipe.dtype).str, "fortran_order": False, "shape": recipe.shape}
    np.lib.format.write_array_header_1_0(stream, description)
    return stream.getvalue()


def _explain(error: OSError, folder: Path, recipe: Recipe) -> CacheError:
    size = prod(recipe.shape) * np.dtype(recipe.dtype).itemsize
    state = "the disk is full" if error.errno in (ENOSPC, EDQUOT) else "the cache cannot be written"
    return CacheError(
        f"{recipe.title}: {state} ({error.strerror or error}); {folder} needs {size / 1e6:,.0f} MB. Free space with "
        "`pneumo cache clear`, move the caches with paths.cache_dir=FOLDER, or disable them with data.cache=false "
        "features.cache=false, which is slower. Finished work is kept."
    )
