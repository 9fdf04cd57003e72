"""Temporary files and folders that do not outlive a kill: the next writer in the same folder removes them.

A temporary is locked as long as its process lives, and its name has a prefix of pneumo's own. One whose lock is free
was left by a kill. The prefix also names the machine, because a lock may not reach beyond it on shared file systems:
what another machine left is removed after `FOREIGN_AGE`.
"""

import hashlib
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows, where age decides
    fcntl = None  # type: ignore[assignment]

PREFIX = ".pneumo-"
FOREIGN_AGE = 86_400.0  # seconds
_OWN = f"{PREFIX}{hashlib.sha256(platform.node().encode()).hexdigest()[:6]}-"
_visited: set[Path] = set()


@contextmanager
def temporary_file(folder: Path, suffix: str = "") -> Iterator[Path]:
    """Create a temporary file, which is removed at the end unless it was renamed.

    Args:
        folder: Where it lies, which exists.
        suffix: Of its name, since some writers choose a format by it.
    """
    _visit(folder)
    while True:
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=_OWN, suffix=suffix)
        if _lock_own(descriptor, Path(name)):
            break
    try:
        yield Path(name)
    finally:
        try:
            Path(name).unlink(missing_ok=True)
        finally:
            os.close(descriptor)


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Create a temporary folder in another one, which exists; it is removed at the end."""
    _visit(folder)
    while True:
        name = tempfile.mkdtemp(dir=folder, prefix=_OWN)
        try:
            descriptor = os.open(name, os.O_RDONLY) if fcntl else -1
        except FileNotFoundError:  # another process took it for one that a kill has left
            continue
        if _lock_own(descriptor, Path(name)):
            break
    try:
        yield Path(name)
    finally:
        shutil.rmtree(name, ignore_errors=True)
        if descriptor >= 0:
            os.close(descriptor)


def remove_stale_below(folder: Path, depth: int) -> None:
    """Remove temporaries that kills have left in a folder and, `depth` levels down, in the folders below it.

    What cannot be locked or removed stays.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:  # each comes with its type, so that a folder of many files takes one listing
            with suppress(OSError):
                is_folder = entry.is_dir(follow_symlinks=False)
                if entry.name.startswith(PREFIX):
                    _remove(Path(entry.path), is_folder)
                elif depth and is_folder:
                    remove_stale_below(Path(entry.path), depth - 1)


def is_at(descriptor: int, path: Path) -> bool:
    """Return whether an open file or folder still lies at its path, and has not been removed or replaced."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _visit(folder: Path) -> None:
    """Remove what kills have left in a folder, once in the life of a process: listing it takes time."""
    if (absolute := folder.absolute()) not in _visited:
        _visited.add(absolute)
        remove_stale_below(folder, depth=0)


def _lock_own(descriptor: int, path: Path) -> bool:
    """Lock a new temporary; return False if another process removed it before."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:  # a file system without locks, where nothing is removed either
        return True
    if is_at(descriptor, path):
        return True
    os.close(descriptor)
    return False


def _remove(path: Path, is_folder: bool) -> None:
    aged = time.time() - path.stat().st_mtime > FOREIGN_AGE
    if not aged and (fcntl is None or not path.name.startswith(_OWN)):
        return
    delete = partial(shutil.rmtree, ignore_errors=True) if is_folder else Path.unlink
    if fcntl is None:
        delete(path)
        return
    # A lock over NFS needs a file that is open for writing.
    descriptor = os.open(path, (os.O_RDONLY if is_folder else os.O_RDWR) | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_at(descriptor, path):
            delete(path)
    finally:
        os.close(descriptor)
