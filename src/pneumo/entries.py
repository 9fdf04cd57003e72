"""What lies in the cache: listed and deleted."""

import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout

from pneumo.cache import lock_of
from pneumo.data.phantoms import MARKER
from pneumo.errors import CacheError
from pneumo.plain_data import PlainDataError, read_json
from pneumo.temporaries import PREFIX

_KEY, _PHANTOMS = re.compile("[0-9a-f]{16}"), re.compile(r"v\d+(-\d+){0,3}(-s\d+)?")  # names of folders
# Of files: temporary ones, of earlier versions too, may be left by kills.
_ARRAY = re.compile(
    rf"about\.json|array\.npy(\.part)?|rows\.txt|notes\.json|{re.escape(PREFIX)}.*|\.(about|rows|notes)-\w{{8}}\.\w+"
)
_PHANTOM = re.compile(
    rf"{re.escape(MARKER)}|(train|val|test)/(NORMAL/(NORMAL2-)?IM|PNEUMONIA/person\d+_(virus|bacteria))[-_\d]+\.jpeg"
)

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
    found = [_describe(place) for place in places if _is_entry(place)]
    return sorted(filter(None, found), key=lambda entry: -entry.bytes)


def foreign_files(entry: Entry) -> list[str]:
    """List the files in an entry's folder that pneumo did not write, as paths relative to it."""
    own = _PHANTOM if entry.kind == "phantoms" else _ARRAY
    names = (path.relative_to(entry.folder).as_posix() for path in entry.folder.rglob("*") if not _is_folder(path))
    return sorted(name for name in names if not own.fullmatch(name))


def remove(entry: Entry) -> bool:
    """Delete an entry unless a process is building it or it has foreign files; return whether it was deleted."""
    lock = lock_of(entry.folder)
    try:
        with lock.acquire(timeout=0):
            if foreign_files(entry):
                return False
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


def _is_entry(place: Path) -> bool:
    """Return whether something has an entry's name: a data set's images/ may hold folders too."""
    if place.parent.name == "manifests":
        return place.suffix == ".txt" and place.is_file()
    name = _PHANTOMS if place.parent.name == "phantoms" else _KEY
    return name.fullmatch(place.name) is not None and _is_folder(place)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _describe(folder: Path) -> Entry | None:
    """Describe an entry; None if somebody has just deleted it."""
    kind = folder.parent.name
    with suppress(FileNotFoundError):
        return Entry(
            kind=kind,
            key=folder.stem if kind == "manifests" else folder.name,
            folder=folder,
            about=_read_about(folder / "about.json") if folder.is_dir() else {},
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
        found = read_json(path, _MOST)
    except FileNotFoundError:
        return {}
    except PlainDataError:
        return None
    return found if isinstance(found, dict) else None
