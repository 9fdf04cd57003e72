"""Temporary files that are removed after a kill, and the user errors behind failures, those of disks among them.

A temporary file is locked while its process lives, and its name has pneumo's prefix. A free lock shows that a kill left
the file behind. Locks may not reach beyond one machine of a shared file system, so the prefix also names the machine:
files of another machine are removed after `_FOREIGN_AGE`.
"""

import errno
import fcntl
import hashlib
import os
import platform
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pneumo.errors import PneumoError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_BROKEN = (errno.EIO, errno.ESTALE, errno.ENAMETOOLONG)
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
_REMEDIES = {
    _FULL: "make room on its disk or choose another one",
    _DENIED: "change its permissions or choose another folder",
    _GONE: "restore its folder or choose another one",
}
PREFIX = ".pneumo-"
_FOREIGN_AGE = 86_400.0  # seconds
_OWN = f"{PREFIX}{hashlib.sha256(platform.node().encode()).hexdigest()[:6]}-"
_visited: set[Path] = set()


class FileError(OSError, PneumoError):
    """A file or folder cannot be read or written. It is an OSError too, so that callers can add what they know."""

    def __init__(self, errno: int | None, strerror: str, filename: str | None = None, text: str = "") -> None:
        """Take what an OSError has, and the paragraph to print."""
        super().__init__(errno, strerror, filename)
        self.text = text

    def __str__(self) -> str:
        """Return the paragraph."""
        return self.text


def write_error(error: OSError, path: object) -> FileError:
    """Return the error of a file that cannot be written."""
    reason = error.strerror or str(error)
    return _make(error, f"{path} cannot be written ({reason})")


def disk_error(error: OSError) -> FileError | None:
    """Return an error of the operating system as one of the user; None if it may be a fault of the program."""
    if isinstance(error, FileError):
        return error
    if error.errno not in (*_FULL, *_DENIED, *_BROKEN):
        return None
    name = "A file" if error.filename is None else str(error.filename)
    what = "written" if error.errno in (*_FULL, errno.EROFS) else "read or written"
    return _make(error, f"{name} cannot be {what} ({error.strerror})")


def mistake_behind(error: BaseException | None) -> tuple[str, str] | None:
    """Return the type and message of a user's mistake that caused an error, however deep; None if there is none."""
    while error is not None:
        if isinstance(error, OSError) and (failure := disk_error(error)) is not None:
            return type(failure).__name__, str(failure)
        if isinstance(error, PneumoError):
            name, text = type(error).__name__, str(error)
            # A DataLoader's worker sends its error as text: the message follows the traceback and the class's name.
            if text.startswith(f"Caught {name} in "):
                text = text.rpartition(f"{name}: ")[2]
            return name, text.strip()
        error = error.__cause__
    return None


@contextmanager
def quiet_threads() -> Iterator[None]:
    """Print no traceback of a thread that a disk's failure ends, such as TensorBoard's; its caller raises the error."""
    before = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        error = arguments.exc_value
        if not (isinstance(error, OSError) and (error.errno in _GONE or disk_error(error))):
            before(arguments)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


@contextmanager
def temporary_file(folder: Path, suffix: str = "") -> Iterator[Path]:
    """Create a temporary file, which is removed at the end unless it was renamed.

    Some writers choose a format by the name's suffix.
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
            descriptor = os.open(name, os.O_RDONLY)
        except FileNotFoundError:  # another process took it for one that a kill has left
            continue
        if _lock_own(descriptor, Path(name)):
            break
    try:
        yield Path(name)
    finally:
        shutil.rmtree(name, ignore_errors=True)
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


def _make(error: OSError, fault: str) -> FileError:
    known = (remedy for numbers, remedy in _REMEDIES.items() if error.errno in numbers)
    text = f"{fault}: {next(known, 'check its disk or choose another folder')}."
    return FileError(error.errno, error.strerror or str(error), error.filename, text)


def _visit(folder: Path) -> None:
    """Remove what kills have left in a folder, once in the life of a process: listing it takes time."""
    if (absolute := folder.absolute()) not in _visited:
        _visited.add(absolute)
        remove_stale_below(folder, depth=0)


def _lock_own(descriptor: int, path: Path) -> bool:
    """Lock a new temporary; return False if another process removed it before."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:  # a file system without locks, where nothing is removed either
        return True
    if is_at(descriptor, path):
        return True
    os.close(descriptor)
    return False


def _remove(path: Path, is_folder: bool) -> None:
    aged = time.time() - path.stat().st_mtime > _FOREIGN_AGE
    if not aged and not path.name.startswith(_OWN):
        return
    # A lock over NFS needs a file that is open for writing.
    descriptor = os.open(path, (os.O_RDONLY if is_folder else os.O_RDWR) | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_at(descriptor, path):
            if is_folder:
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
    finally:
        os.close(descriptor)
