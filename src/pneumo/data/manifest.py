"""The manifest of a data set: what its files hold, so that caches notice when one changes."""

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from pneumo.data.index import Radiograph, file_path
from pneumo.errors import DataError
from pneumo.files import escape_path, write_text
from pneumo.progress import track

_log = logging.getLogger(__name__)

_FILES = 1024  # handed to the threads at once


def content_hash(root: Path, radiographs: Sequence[Radiograph], cache: Path) -> str:
    """Hash the paths, sizes and contents of a data set's files, 32 hex digits.

    Files are read once: while no path, size or time of modification changes, the hash comes from `cache`.

    Raises:
        DataError: A file cannot be read, or has changed since it was indexed.
    """
    stats = hashlib.sha256(f"{escape_path(str(root.resolve()))}\n".encode())
    for radiograph in radiographs:
        stats.update(f"{radiograph.path}\0{radiograph.size}\0{radiograph.modified}\n".encode())
    known = cache / "manifests" / f"{stats.hexdigest()[:16]}.txt"
    if known.is_file() and len(found := known.read_text(encoding="ascii")) == 32:
        return found
    digest = hashlib.sha256()
    with track("Reading files", len(radiographs)) as advance, ThreadPoolExecutor() as pool:
        for start in range(0, len(radiographs), _FILES):
            part = radiographs[start : start + _FILES]
            contents = pool.map(lambda radiograph: _file_hash(root, radiograph), part)
            for radiograph, content in zip(part, contents, strict=True):
                digest.update(f"{radiograph.path}\0{radiograph.size}\0{content}\n".encode())
            advance(start + len(part))
    found = digest.hexdigest()[:32]
    try:
        write_text(known, found)
    except OSError as error:  # a cache that others filled may be read-only
        _log.warning("%s cannot be written (%s); the next run reads all files again.", known, error.strerror)
    return found


def require_unchanged(root: Path, radiographs: Iterable[Radiograph]) -> None:
    """Raise a DataError if a file has changed since it was indexed, so that caches hold what their keys say."""
    for radiograph in radiographs:
        path = file_path(root, radiograph.path)
        with _readable(path):
            _compare(path, path.stat(), radiograph)


def _file_hash(root: Path, radiograph: Radiograph) -> str:
    digest = hashlib.sha256()
    path = file_path(root, radiograph.path)
    with _readable(path), open(path, "rb", buffering=0) as file:
        while block := file.read(1 << 20):
            digest.update(block)
        _compare(path, os.fstat(file.fileno()), radiograph)
    return digest.hexdigest()


def _compare(path: Path, status: os.stat_result, radiograph: Radiograph) -> None:
    if (status.st_size, status.st_mtime_ns) != (radiograph.size, radiograph.modified):
        raise DataError(
            f"{path} has changed since this run listed it. The files of a data set must stay as they are while they "
            "are read: run the same command again."
        )


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}). Each file of a data set must be readable while it is in use: "
            "mend its permissions or its disk, or delete it."
        ) from error
