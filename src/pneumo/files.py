"""Files that are either whole or absent, and names of files as text."""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOSPC
from pathlib import Path

_LONGEST = 255  # bytes of a name
_BYTE = r"udc[89a-f][0-9a-f]"  # how Python writes a byte that is not UTF-8, after a backslash
_LOOKS_ESCAPED = re.compile(rf"\\(?=(?:x5c)*{_BYTE})")
_ESCAPED = re.compile(rf"\\(?:({_BYTE})|x5c(?=(?:x5c)*{_BYTE}))")


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
    stem = path.stem if len(os.fsencode(path.name)) <= _LONGEST - 10 else path.stem[:32]  # 10: what mkstemp adds
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{stem}-", suffix=path.suffix)
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
    """Write `text` to `path` as UTF-8, atomically, with an escape for bytes of file names that are not UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def escape_path(path: str) -> str:
    r"""Return a path as text that any file, terminal and program can hold.

    Each byte that is not UTF-8 becomes `\udc80` to `\udcff`, as Python writes it. All other paths stay as they are,
    except those that contain such text already. `unescape_path` reverses both.
    """
    return _LOOKS_ESCAPED.sub(r"\\x5c", path).encode(errors="backslashreplace").decode()


def unescape_path(text: str) -> str:
    """Return the path that `escape_path` made a text of."""
    return _ESCAPED.sub(lambda found: chr(int(found[1][1:], 16)) if found[1] else "\\", text)


def bounded_name(name: str, suffix: str = "") -> str:
    """Return a file's name and suffix in the 255 bytes that file systems take; what is cut off becomes a hash."""
    if len(os.fsencode(name + suffix)) <= _LONGEST:
        return name + suffix
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    kept = os.fsencode(name)[: _LONGEST - len(os.fsencode(suffix)) - 17].decode(errors="ignore")
    return f"{kept}-{digest}{suffix}"


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
