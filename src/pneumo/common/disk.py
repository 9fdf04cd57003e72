"""Temporary files that are removed even after a kill, and user errors for disk failures.

The name of a temporary file starts with `PREFIX`, and the file is locked while its process runs. An unlocked one is
stale: its process was killed. Locks may not work across the machines of a shared file system, so the prefix also
identifies the machine. Files of another machine are removed after `_FOREIGN_AGE`.
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
    _FULL: "free some space or use another disk",
    _DENIED: "change its permissions or use another folder",
    _GONE: "restore its folder or use another one",
}
PREFIX = ".pneumo-"
_FOREIGN_AGE = 86_400.0  # seconds
_OWN_PREFIX = f"{PREFIX}{hashlib.sha256(platform.node().encode()).hexdigest()[:6]}-"
_cleaned: set[Path] = set()


class FileError(OSError, PneumoError):
    """A file or folder cannot be read or written.

    It is also an OSError, so callers that handle OSErrors can replace its message.
    """

    def __init__(self, errno: int | None, strerror: str, filename: str | None = None, text: str = "") -> None:
        """Initialize with an OSError's arguments and the message to print."""
        super().__init__(errno, strerror, filename)
        self.text = text

    def __str__(self) -> str:
        """Return the message."""
        return self.text


def write_error(error: OSError, path: object) -> FileError:
    """Return the user error for a file that cannot be written."""
    reason = error.strerror or str(error)
    return _file_error(error, f"{path} cannot be written ({reason})")


def disk_error(error: OSError) -> FileError | None:
    """Convert an error of the operating system to a user error; return None if it may be a bug."""
    if isinstance(error, FileError):
        return error
    if error.errno not in (*_FULL, *_DENIED, *_BROKEN):
        return None
    name = "A file" if error.filename is None else str(error.filename)
    action = "written" if error.errno in (*_FULL, errno.EROFS) else "read or written"
    return _file_error(error, f"{name} cannot be {action} ({error.strerror})")


def find_user_error(error: BaseException | None) -> tuple[str, str] | None:
    """Return the class name and message of the user error in an exception's chain of causes; None if there is none."""
    while error is not None:
        if isinstance(error, OSError) and (failure := disk_error(error)) is not None:
            return type(failure).__name__, str(failure)
        if isinstance(error, PneumoError):
            name, text = type(error).__name__, str(error)
            # A DataLoader worker sends its error as text: traceback, class name, message.
            if text.startswith(f"Caught {name} in "):
                text = text.rpartition(f"{name}: ")[2]
            return name, text.strip()
        error = error.__cause__
    return None


@contextmanager
def suppress_thread_tracebacks() -> Iterator[None]:
    """Suppress tracebacks of threads that fail on a disk error, such as TensorBoard's: the caller raises the error."""
    previous = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        error = arguments.exc_value
        if not (isinstance(error, OSError) and (error.errno in _GONE or disk_error(error))):
            previous(arguments)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = previous


@contextmanager
def temporary_file(folder: Path, suffix: str = "") -> Iterator[Path]:
    """Create a temporary file; remove it on exit unless it was renamed.

    Use `suffix` for writers that select the format by the file extension.
    """
    _remove_stale_once(folder)
    while True:
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=_OWN_PREFIX, suffix=suffix)
        if _lock_new(descriptor, Path(name)):
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
    """Create a temporary folder in an existing folder; remove it on exit."""
    _remove_stale_once(folder)
    while True:
        name = tempfile.mkdtemp(dir=folder, prefix=_OWN_PREFIX)
        try:
            descriptor = os.open(name, os.O_RDONLY)
        except FileNotFoundError:  # another process removed it as stale before it was locked
            continue
        if _lock_new(descriptor, Path(name)):
            break
    try:
        yield Path(name)
    finally:
        shutil.rmtree(name, ignore_errors=True)
        os.close(descriptor)


def remove_stale_below(folder: Path, depth: int) -> None:
    """Remove temporary files of killed processes from a folder and its subfolders down to `depth` levels.

    Files that cannot be locked or removed are skipped.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                is_folder = entry.is_dir(follow_symlinks=False)
                if entry.name.startswith(PREFIX):
                    _remove_if_stale(Path(entry.path), is_folder)
                elif depth and is_folder:
                    remove_stale_below(Path(entry.path), depth - 1)


def is_at(descriptor: int, path: Path) -> bool:
    """Return whether an open file or folder is still the one at its path, not removed or replaced."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _file_error(error: OSError, fault: str) -> FileError:
    known = (remedy for numbers, remedy in _REMEDIES.items() if error.errno in numbers)
    text = f"{fault}: {next(known, 'check its disk or use another folder')}."
    return FileError(error.errno, error.strerror or str(error), error.filename, text)


def _remove_stale_once(folder: Path) -> None:
    """Remove stale temporary files from a folder, once per process because listing is slow."""
    if (absolute := folder.absolute()) not in _cleaned:
        _cleaned.add(absolute)
        remove_stale_below(folder, depth=0)


def _lock_new(descriptor: int, path: Path) -> bool:
    """Lock a new temporary file; return False if another process had already removed it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:  # on a file system without locks, no file is removed as stale either
        return True
    if is_at(descriptor, path):
        return True
    os.close(descriptor)
    return False


def _remove_if_stale(path: Path, is_folder: bool) -> None:
    old = time.time() - path.stat().st_mtime > _FOREIGN_AGE
    if not old and not path.name.startswith(_OWN_PREFIX):
        return
    # An exclusive lock over NFS requires a file that is open for writing.
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
