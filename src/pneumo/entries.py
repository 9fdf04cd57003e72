"""What lies in the cache: listed and deleted."""

import json
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout

from pneumo.cache import lock_of
from pneumo.errors import CacheError

KINDS = ("images", "features", "means", "duplicates", "manifests", "phantoms")
_MOST = 1_000_000  # bytes of a description, which has a few hundred


@dataclass(frozen=True)
class Entry:
    """One entry of the cache, as it lies on the disk.

    Attributes:
        kind: One of `KINDS`.
        key: Hash of what it was computed from; the name of its folder.
        folder: Where it lies; a manifest is a file.
        about: What it was computed from; None if its description is damaged.
        bytes: What it takes on the disk.
        used: When a run last used it, in seconds since 1970.
        whole: Whether it is finished.
    """

    kind: str
    key: str
    folder: Path
    about: dict[str, Any] | None
    bytes: int
    used: float
    whole: bool


def entries(cache: Path) -> list[Entry]:
    """List the entries, the largest first."""
    places = [place for kind in KINDS for place in sorted((cache / kind).glob("[!.]*"))]
    found = [_describe(place) for place in places if place.is_dir() or _is_manifest(place)]
    return sorted(filter(None, found), key=lambda entry: -entry.bytes)


def remove(entry: Entry) -> bool:
    """Delete an entry unless a process is building it; tell whether it was deleted."""
    lock = lock_of(entry.folder)
    try:
        with lock.acquire(timeout=0):
            if entry.folder.is_dir():
                shutil.rmtree(entry.folder)
            else:
                entry.folder.unlink()
    except Timeout:
        return False
    except OSError as error:
        raise CacheError(
            f"{entry.folder} cannot be deleted ({error.strerror}): mend its permissions, or delete it as its owner."
        ) from error
    return True


def _is_manifest(place: Path) -> bool:
    return place.parent.name == "manifests" and place.suffix == ".txt" and place.is_file()


def _describe(folder: Path) -> Entry | None:
    """Describe an entry; None if somebody has just deleted it."""
    kind = folder.parent.name
    with suppress(FileNotFoundError):
        return Entry(
            kind=kind,
            key=folder.stem if kind == "manifests" else folder.name,
            folder=folder,
            about=_read_about(folder / "about.json"),
            bytes=sum(_size(path) for path in (folder, *folder.rglob("*"))),
            used=folder.stat().st_mtime,
            whole=kind in ("manifests", "phantoms") or (folder / "array.npy").is_file(),
        )
    return None


def _size(path: Path) -> int:
    with suppress(OSError):  # a run renames its files when they are finished; some may be unreadable
        return path.stat().st_size if path.is_file() else 0
    return 0


def _read_about(path: Path) -> dict[str, Any] | None:
    """Read a description; empty if there is none, None if it is damaged."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_MOST + 1))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
