"""Failures of disks and folders as errors of the user, who can fix them."""

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager

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
    """Return the error of a file that cannot be written.

    Args:
        error: What the system raised.
        path: Of the file.
    """
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


def _make(error: OSError, fault: str) -> FileError:
    known = (remedy for numbers, remedy in _REMEDIES.items() if error.errno in numbers)
    text = f"{fault}: {next(known, 'check its disk or choose another folder')}."
    return FileError(error.errno, error.strerror or str(error), error.filename, text)
