"""What lies in the cache: listed and deleted."""

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout

from pneumo.cache import lock_of
from pneumo.errors import CacheError
from pneumo.plain_data import PlainDataError, read_json

KINDS = ("images", "features", "means", "duplicates", "phantoms")


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
    lock = lock_of(entry.folder)
    try:
        with lock.acquire(timeout=0):
            shutil.rmtree(entry.folder)
    except Timeout:
        return False
    except OSError as error:
        raise CacheError(
            f"{entry.folder} cannot be deleted ({error.strerror}): mend its permissions, or delete it as its owner."
        ) from error
    return True


def _describe(folder: Path) -> Entry:
    about = folder / "about.json"
    return Entry(
        kind=folder.parent.name,
        key=folder.name,
        folder=folder,
        about=_read_about(about),
        bytes=sum(_size(path) for path in folder.rglob("*")),
        used=folder.stat().st_mtime,
        whole=folder.parent.name == "phantoms" or (folder / "array.npy").is_file(),
    )


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):  # a run renames its files when they are finished
        return path.stat().st_size if path.is_file() else 0
    return 0


def _read_about(path: Path) -> dict[str, Any]:
    with suppress(FileNotFoundError, PlainDataError):
        found = read_json(path)
        return found if isinstance(found, dict) else {}
    return {}
