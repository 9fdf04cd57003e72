"""Files that are either whole or absent."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOSPC
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it becomes `path`, on any failure it disappears.

    The file is flushed to disk before the rename, so that a crash leaves the old file or the new one, never a
    part of either.

    Args:
        path: Where the finished file shall lie. Its folder is made if it is missing.

    Yields:
        The temporary path to write to, in the same folder and with the same suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        flush(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def require_space(folder: Path, need: int) -> None:
    """Raise an OSError unless `need` bytes are free where `folder` lies."""
    if (free := shutil.disk_usage(folder).free) < need:
        raise OSError(ENOSPC, f"{need:,} bytes are needed in {folder}, and {free:,} are free")


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are safe on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    """The process's mask for new files; mkstemp ignores it and makes files that only their owner can read."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
