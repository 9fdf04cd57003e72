"""Atomic writes, locks, checks of output paths, and file names as text and of bounded length."""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from errno import ENOSPC
from pathlib import Path

from filelock import BaseFileLock, FileLock

from pneumo.common.disk import PREFIX, FileError, temporary_file, write_error
from pneumo.errors import ConfigError

_LONGEST = 255  # bytes of a name
_PROBE = 1 << 16  # bytes, more than the first small files of a run take
_BYTE = r"udc[89a-f][0-9a-f]"  # how Python writes a byte that is not UTF-8, after a backslash
_LOOKS_ESCAPED = re.compile(rf"\\(?=(?:x5c)*{_BYTE})")
_ESCAPED = re.compile(rf"\\(?:({_BYTE})|x5c(?=(?:x5c)*{_BYTE}))")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; on success it becomes `path`, on any failure it disappears.

    The file is flushed to disk before the rename, so that a crash leaves the old file or the new one, never a
    part of either. A kill leaves the temporary file, which the next writer in the folder removes.

    Yields:
        The temporary path to write to, in the same folder and with the same suffix, unless that is very long.

    Raises:
        FileError: The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        suffix = path.suffix if len(os.fsencode(path.suffix)) < _LONGEST // 2 else ""
        with temporary_file(path.parent, suffix) as temporary:
            yield temporary
            flush(temporary)
            mask = os.umask(0)  # mkstemp ignores the process's mask and makes files that only their owner can read
            os.umask(mask)
            temporary.chmod(0o666 & ~mask)
            temporary.replace(path)
            flush(path.parent)
    except FileError:  # of another file, written meanwhile
        raise
    except OSError as error:
        if not _concerns(error, path):  # the caller may read other files meanwhile
            raise
        raise write_error(error, path) from error


def require_writable(folder: Path) -> None:
    """Make a folder if it is missing, and raise an OSError unless a file of some size can be written in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"0" * _PROBE)
        file.flush()


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


def lock_of(path: Path) -> BaseFileLock:
    """Return the lock of a file or folder that processes share, which lies next to it."""
    return FileLock(path.parent / f".{path.name}.lock")


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


def check_output(option: str, path: Path | None) -> None:
    """Make the folder of the file that an option names, and raise a ConfigError if the file cannot be written."""
    if path is None:
        return
    if path.is_dir():
        example = path / f"pneumo{path.suffix or '.' + option.lstrip('-')}"
        raise ConfigError(f"{option} {path} is a folder: name a file, such as {example}.")
    check_folder(option, path.parent, path)


def refuse_inputs(outputs: Iterable[tuple[str, Path | None]], inputs: Iterable[Path]) -> None:
    """Raise a ConfigError if a command would overwrite an input, or one output by another.

    Outputs come with the options that name them.
    """
    written: dict[Path, str] = {}
    for option, path in outputs:
        if path is not None and (other := written.setdefault(path.resolve(), option)) != option:
            raise ConfigError(f"{option} {path} is the file that {other} names too: name another one.")
    for path in inputs:
        if named := written.get(path.resolve()):
            raise ConfigError(
                f"{named} {path} is a file that this command reads, and it would be overwritten: name another file."
            )


def check_folder(option: str, folder: Path, path: Path | None = None) -> None:
    """Make a folder if it is missing, and raise a ConfigError if it cannot be written.

    The option names the folder or, where there is a path, that file in it.
    """
    try:
        require_writable(folder)
    except OSError as error:
        raise unwritable(option, path or folder, error) from error


def write_output(option: str, path: Path, text: str) -> None:
    """Write the file that an option names, atomically, or raise a ConfigError."""
    try:
        write_text(path, text)
    except OSError as error:
        raise unwritable(option, path, error) from error


def unwritable(option: str, path: Path, error: OSError) -> ConfigError:
    """Return the error of a place which an option names and which cannot be written."""
    return ConfigError(f"{option} {path} cannot be written ({error.strerror or error}): name another place.")


def _concerns(error: OSError, path: Path) -> bool:
    """Return whether an error is about writing a file: about itself, its temporary file or a folder above."""
    if not isinstance(error.filename, str | bytes):
        return error.errno is not None
    name, path = Path(os.fsdecode(error.filename)).absolute(), path.absolute()
    return path.is_relative_to(name) or (name.parent == path.parent and name.name.startswith(PREFIX))
