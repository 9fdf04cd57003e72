"""The inventory of the caches: entries, their selection and their removal."""

import re
import shutil
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout

from pneumo.common.disk import PREFIX, remove_stale_below
from pneumo.common.files import lock_of
from pneumo.common.plain_data import PlainDataError, read_json
from pneumo.data.phantoms import MARKER
from pneumo.errors import CacheError, ConfigError

KINDS = ("images", "features", "means", "duplicates", "manifests", "phantoms")
_KEY, _PHANTOMS = re.compile("[0-9a-f]{16}"), re.compile(r"v\d+(-\d+){0,3}(-s\d+)?")  # names of folders
# Of files: temporary ones, of earlier versions too, may be left by kills.
_ARRAY = re.compile(
    rf"about\.json|array\.npy(\.part)?|rows\.txt|notes\.json|{re.escape(PREFIX)}.*|\.(about|rows|notes)-\w{{8}}\.\w+"
)
_PHANTOM = re.compile(
    rf"{re.escape(MARKER)}|(train|val|test)/(NORMAL/(NORMAL2-)?IM|PNEUMONIA/person\d+_(virus|bacteria))[-_\d]+\.jpeg"
)
_MOST = 1_000_000  # bytes of a description, which has a few hundred


@dataclass(frozen=True)
class Entry:
    """One entry of the cache, as it lies on the disk."""

    kind: str  # one of `KINDS`
    key: str  # hash of what it was computed from; the name of its folder
    folder: Path  # where it lies; a manifest is a file
    about: dict[str, Any] | None  # what it was computed from; None if its description is damaged
    bytes: int  # what it takes on the disk
    used: float  # when a run last used it, in seconds since 1970
    whole: bool  # whether it is finished


def find_entries(folder: Path) -> list[Entry]:
    """Remove what kills have left in a cache's folder, and list the entries, the largest first.

    Raises:
        ConfigError: There is no such folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"There is no folder {folder}: name the runs' paths.cache_dir as --dir FOLDER.")
    remove_stale_below(folder, depth=2)
    return entries(folder)


def entries(cache: Path) -> list[Entry]:
    """List the entries, the largest first."""
    places = [place for kind in KINDS for place in sorted((cache / kind).glob("[!.]*"))]
    found = [_describe(place) for place in places if _is_entry(place)]
    return sorted(filter(None, found), key=lambda entry: -entry.bytes)


def remove(entry: Entry) -> bool:
    """Delete an entry unless a process is building it or it has foreign files; return whether it was deleted."""
    try:
        with lock_of(entry.folder).acquire(timeout=0):
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


def foreign_files(entry: Entry) -> list[str]:
    """List the files in an entry's folder that pneumo did not write, as paths relative to it."""
    own = _PHANTOM if entry.kind == "phantoms" else _ARRAY
    names = (path.relative_to(entry.folder).as_posix() for path in entry.folder.rglob("*") if not _is_folder(path))
    return sorted(name for name in names if not own.fullmatch(name))


def require_known(name: str, given: Collection[str], known: Collection[str], folder: Path) -> None:
    """Raise a ConfigError if a value that is given under a name is not one of those of a cache's folder."""
    if unknown := [value for value in given if value not in known]:
        raise ConfigError(
            f"{name} {', '.join(unknown)} is not one of {', '.join(sorted(known)) or 'none, as it is empty'}; "
            f"`pneumo cache list --dir {folder}` shows what there is."
        )


def select(found: Collection[Entry], keys: Collection[str], kind: str | None, days: float) -> list[Entry]:
    """Return the entries not used for some days, of some keys and of one kind; phantoms only if asked for.

    No keys are all keys, None is any kind.
    """
    oldest = time.time() - days * 86_400
    kinds = [kind] if kind is not None else [name for name in KINDS if keys or name != "phantoms"]
    asked = (entry for entry in found if entry.kind in kinds and (not keys or entry.key in keys))
    return [entry for entry in asked if entry.used <= oldest]


def contents(entry: Entry) -> str:
    """Describe what an entry holds."""
    about = entry.about
    if about is None:
        return f"unknown: its about.json is damaged; `pneumo cache clear {entry.key}` deletes it"
    parts = [str(about["architecture"])] if "architecture" in about else []
    if "images" in about:
        some = "some of " if "positions" in about else ""
        count = f"{about['images']:,}" if isinstance(about["images"], int) else about["images"]
        parts.append(f"{some}{count} images" + (f" at {about['image_size']} pixels" if "image_size" in about else ""))
    if "views" in about:
        parts.append(f"{about['views']} augmented views")
    if "device" in about:
        parts.append(f"on {about['device']}")
    return ", ".join([*parts, *([] if entry.whole else ["unfinished: the next run goes on with it"])])


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
