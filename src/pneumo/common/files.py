"""Atomic writes, locks, checks of output paths, and escaped or shortened file names."""

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

_MAX_NAME_BYTES = 255
_PROBE_BYTES = 1 << 16  # more than the first small files of a run need
_BYTE = r"udc[89a-f][0-9a-f]"  # Python's escape of a non-UTF-8 byte, after the backslash
_LOOKS_ESCAPED = re.compile(rf"\\(?=(?:x5c)*{_BYTE})")
_ESCAPED = re.compile(rf"\\(?:({_BYTE})|x5c(?=(?:x5c)*{_BYTE}))")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; on success rename it to `path`, on failure remove it.

    The file is flushed to disk before the rename, so a crash leaves either the old or the new file, both complete.
    After a kill, the next writer in the folder removes the temporary file.

    Yields:
        The temporary path, in the same folder and with the same suffix unless that is very long.

    Raises:
        FileError: The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        suffix = path.suffix if len(os.fsencode(path.suffix)) < _MAX_NAME_BYTES // 2 else ""
        with temporary_file(path.parent, suffix) as temporary:
            yield temporary
            flush(temporary)
            mask = os.umask(0)  # mkstemp ignores the umask and creates files that only their owner can read
            os.umask(mask)
            temporary.chmod(0o666 & ~mask)
            temporary.replace(path)
            flush(path.parent)
    except FileError:  # about another file that the caller wrote inside the context
        raise
    except OSError as error:
        if not _concerns(error, path):  # about another file that the caller read inside the context
            raise
        raise write_error(error, path) from error


def require_writable(folder: Path) -> None:
    """Create a folder if it is missing; raise an OSError if a 64 KiB file cannot be written in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"0" * _PROBE_BYTES)
        file.flush()


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically as UTF-8; bytes of file names that are not UTF-8 are escaped."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def escape_path(path: str) -> str:
    r"""Return a path as valid UTF-8 text.

    Each byte that is not UTF-8 becomes `\udc80` to `\udcff`, Python's escape. Backslashes of text that looks like such
    an escape are escaped too. `unescape_path` reverses both.
    """
    return _LOOKS_ESCAPED.sub(r"\\x5c", path).encode(errors="backslashreplace").decode()


def unescape_path(text: str) -> str:
    """Return the path that `escape_path` escaped."""
    return _ESCAPED.sub(lambda match: chr(int(match[1][1:], 16)) if match[1] else "\\", text)


def bounded_name(name: str, suffix: str = "") -> str:
    """Return a file name of at most 255 bytes, the limit of most file systems; a hash replaces the cut-off part."""
    if len(os.fsencode(name + suffix)) <= _MAX_NAME_BYTES:
        return name + suffix
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    start = os.fsencode(name)[: _MAX_NAME_BYTES - len(os.fsencode(suffix)) - 17].decode(errors="ignore")
    return f"{start}-{digest}{suffix}"


def lock_of(path: Path) -> BaseFileLock:
    """Return the lock of a file or folder that several processes use; the lock file is next to it."""
    return FileLock(path.parent / f".{path.name}.lock")


def require_space(folder: Path, need: int) -> None:
    """Raise an OSError unless `need` bytes are free on the disk of `folder`."""
    if (free := shutil.disk_usage(folder).free) < need:
        raise OSError(ENOSPC, f"{need:,} bytes are needed in {folder}, and {free:,} are free")


def flush(path: Path) -> None:
    """Flush a file, or a folder's directory entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_output(option: str, path: Path | None) -> None:
    """Create the folder of an option's output file; raise a ConfigError if the file cannot be written."""
    if path is None:
        return
    if path.is_dir():
        example = path / f"pneumo{path.suffix or '.' + option.lstrip('-')}"
        raise ConfigError(f"{option} {path} is a folder: it must be a file, such as {example}.")
    check_folder(option, path.parent, path)


def check_overwrites(outputs: Iterable[tuple[str, Path | None]], inputs: Iterable[Path]) -> None:
    """Raise a ConfigError if an output would overwrite an input or another output.

    Args:
        outputs: Pairs of a command-line option and its output path.
        inputs: Paths that the command reads.
    """
    written: dict[Path, str] = {}
    for option, path in outputs:
        if path is not None and (other := written.setdefault(path.resolve(), option)) != option:
            raise ConfigError(f"{option} {path} is also the output file of {other}. Use another file.")
    for path in inputs:
        if overwriting := written.get(path.resolve()):
            raise ConfigError(f"{overwriting} {path} would overwrite an input of this command. Use another file.")


def check_folder(option: str, folder: Path, path: Path | None = None) -> None:
    """Create a folder if it is missing; raise a ConfigError if it cannot be written.

    The error names `path` if given, else the folder.
    """
    try:
        require_writable(folder)
    except OSError as error:
        raise unwritable(option, path or folder, error) from error


def write_output(option: str, path: Path, text: str) -> None:
    """Write an option's output file atomically; raise a ConfigError if it cannot be written."""
    try:
        write_text(path, text)
    except OSError as error:
        raise unwritable(option, path, error) from error


def unwritable(option: str, path: Path, error: OSError) -> ConfigError:
    """Return the user error for an option whose path cannot be written."""
    return ConfigError(f"{option} {path} cannot be written ({error.strerror or error}). Use another path.")


def _concerns(error: OSError, path: Path) -> bool:
    """Return whether an error is about writing a file: about the file, its temporary file or a parent folder."""
    if not isinstance(error.filename, str | bytes):
        return error.errno is not None
    name, path = Path(os.fsdecode(error.filename)).absolute(), path.absolute()
    return path.is_relative_to(name) or (name.parent == path.parent and name.name.startswith(PREFIX))
