"""The array cache: arrays on disk that all runs share, written in steps, and safe to delete.

An entry is a folder, CACHE/KIND/KEY. about.json describes what the array was computed from, array.npy is the array,
and notes.json has remarks on its images. While an array is being written, array.npy.part replaces it, and rows.txt
counts the rows that are already safe on disk.
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
Notes = dict[str, list[str]]  # by an image's path
_NOTES = "notes.json"
_MOST_NOTES = 1 << 28  # bytes
SAFE_EVERY = 1.0  # seconds of work that a kill may cost


@dataclass(frozen=True)
class Recipe:
    """What an array is computed from; any change of it is another entry."""

    kind: str  # one of `pneumo.data.cache_inventory.KINDS`
    about: dict[str, Any]  # plain values that tell everything that decides the array's content
    shape: tuple[int, ...]  # of the whole array
    dtype: str  # NumPy's name of its type
    doing: str  # what building it is called, such as `Decoding images`

    @property
    def key(self) -> str:
        """Hash of all that decides the content, 16 hex digits."""
        return hash_plain([self.kind, self.about, self.shape, self.dtype])


def find(cache: Path, recipe: Recipe) -> Array | None:
    """Open an array, memory-mapped and read-only, if it is there; one that is damaged counts as missing."""
    path = cache / recipe.kind / recipe.key / "array.npy"
    try:
        array: Array = np.load(path, mmap_mode="r")
        if (array.shape, array.dtype) != (recipe.shape, np.dtype(recipe.dtype)):
            raise ValueError("its header is another array's")
    except FileNotFoundError:
        return None
    except (ValueError, EOFError) as error:
        _log.warning("%s is damaged (%s) and is computed anew.", path, error)
        return None
    with suppress(OSError):  # a cache that others filled may be read-only
        os.utime(path.parent)  # `pneumo cache clear --unused` goes by it
    return array


def find_or_build(
    cache: Path, recipe: Recipe, blocks: Callable[[int], Iterator[Array]], notes: Notes | None = None
) -> Array:
    """Open an array, after computing it if it is missing.

    Of several processes one computes and the others wait. What is finished survives a kill: the next call resumes. An
    entry that is deleted meanwhile is computed again. `blocks` maps a row to the array's content from there on, in
    blocks of rows. The rows at which it is asked to begin are ends of blocks, so a block may depend on where it begins.
    It may add to `notes` before it yields; those of an entry that is there are added here.

    Raises:
        CacheError: The disk is full or cannot be written.
    """
    folder = cache / recipe.kind / recipe.key
    notes = {} if notes is None else notes
    try:
        while (array := find(cache, recipe)) is None:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder, recipe.doing):
                if (array := find(cache, recipe)) is None and _build(folder, recipe, blocks, notes):
                    array = find(cache, recipe)  # under the lock, so that `pneumo cache clear` cannot come before
            if array is not None:
                break
            _log.warning("%s: %s was deleted meanwhile; beginning anew.", recipe.doing, folder)
    except OSError as error:
        raise _explain(error, folder, recipe) from error
    notes |= _read_notes(folder)
    return array


@contextmanager
def locked(folder: Path, doing: str) -> Iterator[None]:
    """Hold an entry's lock; log if that takes waiting for another process."""
    lock = lock_of(folder)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _log.info("%s: another process is at it; waiting for it to finish (%s)", doing, folder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build(folder: Path, recipe: Recipe, blocks: Callable[[int], Iterator[Array]], notes: Notes) -> bool:
    """Compute an array; return whether it is there now and was not deleted on the way."""
    folder.mkdir(exist_ok=True)  # it may have been deleted meanwhile
    part, rows = folder / "array.npy.part", folder / "rows.txt"
    header = _header(recipe)
    row_bytes = prod(recipe.shape[1:]) * np.dtype(recipe.dtype).itemsize
    start = _safe_rows(part, rows, len(header), row_bytes)
    if not 0 < start <= recipe.shape[0]:  # or rows.txt is another array's, or damaged
        start = 0
        rows.unlink(missing_ok=True)  # of a part that is no more
        (folder / _NOTES).unlink(missing_ok=True)
    notes |= _read_notes(folder)
    write_text(folder / "about.json", json.dumps(recipe.about, indent=2) + "\n")
    with part.open("r+b" if start else "wb") as file:
        require_space(folder, len(header) + (recipe.shape[0] - start) * row_bytes)
        file.write(header)
        file.seek(len(header) + start * row_bytes)
        file.truncate()
        done, safe = start, time.monotonic()
        content = blocks(start)  # what it needs first, such as another array, has a progress bar of its own
        with track(recipe.doing, recipe.shape[0], start) as advance:
            for block in content:
                file.write(np.ascontiguousarray(block, recipe.dtype).tobytes())
                done += len(block)
                advance(done)
                if time.monotonic() - safe > SAFE_EVERY:
                    if not _make_safe(file, part, notes):
                        return False
                    write_text(rows, str(done))
                    safe = time.monotonic()
        if done != recipe.shape[0]:
            raise RuntimeError(f"{done} rows instead of {recipe.shape[0]}")
        if not _make_safe(file, part, notes):
            return False
    part.replace(folder / "array.npy")
    flush(folder)
    rows.unlink(missing_ok=True)
    return True


def _read_notes(folder: Path) -> Notes:
    try:
        found = read_json(folder / _NOTES, _MOST_NOTES)
    except (FileNotFoundError, PlainDataError):  # an entry without notes has no such file
        return {}
    texts = isinstance(found, dict) and all(
        isinstance(each, list) and all(isinstance(note, str) for note in each) for each in found.values()
    )
    return found if texts else {}


def _make_safe(file: IO[bytes], path: Path, notes: Notes) -> bool:
    """Wait until rows and notes are on the disk; return whether the file still lies at its path."""
    file.flush()
    os.fsync(file.fileno())
    there = is_at(file.fileno(), path)
    if there and notes:
        write_text(path.parent / _NOTES, json.dumps(notes, indent=2) + "\n")
    return there


def _safe_rows(part: Path, rows: Path, header_bytes: int, row_bytes: int) -> int:
    """Return how many rows of a part are known to be safe; none if the two files do not fit together."""
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
    need = prod(recipe.shape) * np.dtype(recipe.dtype).itemsize
    state = "the disk is full" if error.errno in (ENOSPC, EDQUOT) else "the cache cannot be written"
    return CacheError(
        f"{recipe.doing}: {state} ({error.strerror or error}). {folder} takes {need / 1e6:,.0f} MB: make room (`pneumo "
        "cache list` and `pneumo cache clear` help), put the caches elsewhere with paths.cache_dir=FOLDER, or do "
        "without with data.cache=false features.cache=false, which is slower. What is finished is kept."
    )
