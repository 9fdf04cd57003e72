"""Arrays that are computed once and shared by all runs: built in steps, whole or absent, safe to delete.

An entry is a folder, CACHE/KIND/KEY, with about.json, which tells what it was computed from, and array.npy. While it is
being built, array.npy.part grows in its place, and rows.txt tells how many of its rows are safe on the disk.
"""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import EDQUOT, ENOSPC
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from pneumo.errors import CacheError
from pneumo.files import flush, require_space, write_text
from pneumo.progress import track

_log = logging.getLogger(__name__)

Array = npt.NDArray[Any]
KINDS = ("images", "features", "phantoms")
SAFE_EVERY = 2.0  # seconds of work that a kill may cost


@dataclass(frozen=True)
class Recipe:
    """What an array is computed from; any change of it is another entry.

    Attributes:
        kind: images or features.
        about: Plain values that tell everything that decides the array's content.
        shape: Of the whole array.
        dtype: NumPy's name of its type.
        doing: What building it is called, such as `Decoding images`.
    """

    kind: str
    about: dict[str, Any]
    shape: tuple[int, ...]
    dtype: str
    doing: str

    @property
    def key(self) -> str:
        """Hash of all that decides the content, 16 hex digits."""
        return hash_plain([self.kind, self.about, self.shape, self.dtype])


def hash_plain(value: Any) -> str:  # noqa: ANN401 (whatever JSON can hold)
    """Hash plain values, 16 hex digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def find(cache: Path, recipe: Recipe) -> Array | None:
    """Open an array, memory-mapped and read-only, if it is there; one that is damaged is removed, with a warning."""
    path = cache / recipe.kind / recipe.key / "array.npy"
    try:
        array: Array = np.load(path, mmap_mode="r")
    except FileNotFoundError:
        return None
    except (ValueError, EOFError) as error:
        _log.warning("%s is damaged (%s) and is computed anew.", path, error)
        path.unlink(missing_ok=True)
        return None
    with suppress(OSError):  # a cache that others filled may be read-only
        os.utime(path.parent)  # `pneumo cache clear --unused` goes by it
    assert (array.shape, array.dtype) == (recipe.shape, np.dtype(recipe.dtype)), f"{path} is not what its key says"
    return array


def find_or_build(cache: Path, recipe: Recipe, blocks: Callable[[int], Iterator[Array]]) -> Array:
    """Open an array, after computing it if it is not there.

    Of several processes one computes and the others wait. What is finished survives a kill: the next call goes on.

    Args:
        cache: The folder of all caches.
        recipe: What to compute.
        blocks: Maps a row to the array's content from there on, in blocks of rows. The rows at which it is asked to
            begin are ends of blocks, so a block may depend on where it begins.

    Raises:
        CacheError: The disk is full or cannot be written.
    """
    if (array := find(cache, recipe)) is not None:
        return array
    folder = cache / recipe.kind / recipe.key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, recipe.doing):
            if (array := find(cache, recipe)) is None:
                _build(folder, recipe, blocks)
    except OSError as error:
        raise _explain(error, folder, recipe) from error
    array = find(cache, recipe)
    assert array is not None, f"{folder} was deleted while it was in use"
    return array


@contextmanager
def locked(folder: Path, doing: str) -> Iterator[None]:
    """Hold an entry's lock; say so if that takes waiting for another process."""
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _log.info("%s: another process is at it; waiting for it to finish (%s)", doing, folder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build(folder: Path, recipe: Recipe, blocks: Callable[[int], Iterator[Array]]) -> None:
    folder.mkdir(exist_ok=True)  # it may have been deleted meanwhile
    part, rows = folder / "array.npy.part", folder / "rows.txt"
    header = _header(recipe)
    row_bytes = prod(recipe.shape[1:]) * np.dtype(recipe.dtype).itemsize
    start = int(rows.read_text()) if rows.is_file() and part.is_file() else 0
    write_text(folder / "about.json", json.dumps(recipe.about, indent=2) + "\n")
    with part.open("r+b" if start else "wb") as file:
        require_space(folder, len(header) + (recipe.shape[0] - start) * row_bytes)
        file.write(header)
        file.seek(len(header) + start * row_bytes)
        file.truncate()
        done, safe = start, time.monotonic()
        with track(recipe.doing, recipe.shape[0], start) as advance:
            for block in blocks(start):
                file.write(np.ascontiguousarray(block, recipe.dtype).tobytes())
                done += len(block)
                advance(done)
                if time.monotonic() - safe > SAFE_EVERY:
                    file.flush()
                    os.fsync(file.fileno())
                    write_text(rows, str(done))
                    safe = time.monotonic()
        assert done == recipe.shape[0], f"{done} rows instead of {recipe.shape[0]}"
    flush(part)
    part.replace(folder / "array.npy")
    flush(folder)
    rows.unlink(missing_ok=True)


def _header(recipe: Recipe) -> bytes:
    """Give what a .npy file begins with."""
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


@dataclass(frozen=True)
class Entry:
    """One entry of the cache, as it lies on the disk.

    Attributes:
        kind: One of `KINDS`.
        key: Hash of what it was computed from; the folder's name.
        folder: Where it lies.
        about: What it was computed from.
        bytes: What it takes on the disk.
        used: When a run last used it, in seconds since 1970.
        whole: Whether it is finished.
    """

    kind: str
    key: str
    folder: Path
    about: dict[str, Any]
    bytes: int
    used: float
    whole: bool


def entries(cache: Path) -> list[Entry]:
    """List the entries, the largest first."""
    found = [_describe(folder) for kind in KINDS for folder in sorted((cache / kind).glob("[!.]*")) if folder.is_dir()]
    return sorted(found, key=lambda entry: -entry.bytes)


def remove(entry: Entry) -> bool:
    """Delete an entry unless a process is building it; tell whether it was deleted."""
    lock = FileLock(entry.folder.with_name(f".{entry.folder.name}.lock"))
    try:
        with lock.acquire(timeout=0):
            shutil.rmtree(entry.folder)
    except Timeout:
        return False
    return True


def _describe(folder: Path) -> Entry:
    files = [path for path in folder.rglob("*") if path.is_file()]
    about = folder / "about.json"
    return Entry(
        kind=folder.parent.name,
        key=folder.name,
        folder=folder,
        about=json.loads(about.read_text(encoding="utf-8")) if about.is_file() else {},
        bytes=sum(path.stat().st_size for path in files),
        used=folder.stat().st_mtime,
        whole=folder.parent.name == "phantoms" or (folder / "array.npy").is_file(),
    )
