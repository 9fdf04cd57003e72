"""Listing, selection and removal of cache entries."""

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

KINDS = ("images", "features", "means", "duplicates", "manifests", "phantoms", "locators")
_KEY, _PHANTOMS = re.compile("[0-9a-f]{16}"), re.compile(r"v\d+(-\d+){0,3}(-s\d+)?")  # folder names
# File names, including temporary files of this and earlier versions that killed processes left behind.
_ARRAY = re.compile(
    rf"about\.json|array\.npy(\.part)?|rows\.txt|notes\.json|{re.escape(PREFIX)}.*|\.(about|rows|notes)-\w{{8}}\.\w+"
)
_PHANTOM = re.compile(
    rf"{re.escape(MARKER)}|(train|val|test)/(NORMAL/(NORMAL2-)?IM|PNEUMONIA/person\d+_(virus|bacteria))[-_\d]+\.jpeg"
)
_MAX_ABOUT_BYTES = 1_000_000  # of about.json, which usually has a few hundred bytes


@dataclass(frozen=True)
class Entry:
    """Cache entry on the disk."""

    kind: str  # one of `KINDS`
    key: str  # hash of the recipe, or the name of a folder of phantoms
    folder: Path  # path of the entry; a manifest is a file
    provenance: dict[str, Any] | None  # content of about.json; None if it is damaged
    bytes: int  # size on the disk
    used: float  # time of the last use by a run, in seconds since 1970
    complete: bool  # False while the entry is unfinished


def find_entries(folder: Path) -> list[Entry]:
    """Remove stale temporary files of killed processes and list the cache entries, largest first.

    Raises:
        ConfigError: The folder does not exist.
    """
    if not folder.is_dir():
        raise ConfigError(f"--dir {folder} does not exist. Set --dir to the paths.cache_dir of the runs.")
    remove_stale_below(folder, depth=2)
    return list_entries(folder)


def list_entries(cache: Path) -> list[Entry]:
    """List the cache entries, largest first."""
    paths = [path for kind in KINDS for path in sorted((cache / kind).glob("[!.]*"))]
    entries = [_read_entry(path) for path in paths if _is_entry(path)]
    return sorted(filter(None, entries), key=lambda entry: -entry.bytes)


def remove(entry: Entry) -> bool:
    """Delete an entry; return False if it is kept because a process is building it or it contains foreign files."""
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
            f"{entry.folder} cannot be deleted ({error.strerror}). Fix its permissions, or delete it as its owner."
        ) from error
    return True


def foreign_files(entry: Entry) -> list[str]:
    """List the files in an entry that pneumo did not write, relative to its folder."""
    expected = _PHANTOM if entry.kind == "phantoms" else _ARRAY
    names = (path.relative_to(entry.folder).as_posix() for path in entry.folder.rglob("*") if not _is_folder(path))
    return sorted(name for name in names if not expected.fullmatch(name))


def require_known_values(name: str, given: Collection[str], known: Collection[str], folder: Path) -> None:
    """Raise a ConfigError if any of the values `given` for the option or argument `name` is unknown."""
    if unknown := [value for value in given if value not in known]:
        raise ConfigError(
            f"{name} {', '.join(unknown)} is unknown; known values: {', '.join(sorted(known)) or 'none'}. "
            f"`pneumo cache list --dir {folder}` lists the entries."
        )


def select(entries: Collection[Entry], keys: Collection[str], kind: str | None, days: float) -> list[Entry]:
    """Select the entries with the given keys and kind that no run has used for `days` days.

    If `keys` is empty, any key matches. If `kind` is None, any kind matches, but phantoms only if keys are given.
    """
    newest = time.time() - days * 86_400
    kinds = [kind] if kind is not None else [name for name in KINDS if keys or name != "phantoms"]
    selected = (entry for entry in entries if entry.kind in kinds and (not keys or entry.key in keys))
    return [entry for entry in selected if entry.used <= newest]


def describe_contents(entry: Entry) -> str:
    """Describe the contents of an entry as text."""
    about = entry.provenance
    if about is None:
        return f"unknown, because about.json is damaged; `pneumo cache clear {entry.key}` deletes the entry"
    parts = [str(about["architecture"])] if "architecture" in about else []
    if "images" in about:
        prefix = "some of " if "positions" in about else ""
        count = f"{about['images']:,}" if isinstance(about["images"], int) else about["images"]
        parts.append(f"{prefix}{count} images" + (f" at {about['image_size']} pixels" if "image_size" in about else ""))
    if "phantoms" in about:
        parts.append(f"lung locator, trained on {about['phantoms']} phantoms")
    if "views" in about:
        parts.append(f"{about['views']} augmented views")
    if "device" in about:
        parts.append(f"on {about['device']}")
    return ", ".join([*parts, *([] if entry.complete else ["unfinished: the next run resumes it"])])


def _is_entry(path: Path) -> bool:
    """Return whether a path is named like an entry, since images/ may also contain folders of a data set."""
    if path.parent.name == "manifests":
        return path.suffix == ".txt" and path.is_file()
    name = _PHANTOMS if path.parent.name == "phantoms" else _KEY
    return name.fullmatch(path.name) is not None and _is_folder(path)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _read_entry(folder: Path) -> Entry | None:
    """Read the properties of an entry; return None if it was deleted in the meantime."""
    kind = folder.parent.name
    with suppress(FileNotFoundError):
        return Entry(
            kind=kind,
            key=folder.stem if kind == "manifests" else folder.name,
            folder=folder,
            provenance=_read_about(folder / "about.json") if folder.is_dir() else {},
            bytes=sum(_size(path) for path in (folder, *folder.rglob("*"))),
            used=folder.stat().st_mtime,
            complete=kind in ("manifests", "phantoms") or (folder / "array.npy").is_file(),
        )
    return None


def _size(path: Path) -> int:
    with suppress(OSError):  # a run may rename its files meanwhile, and some may be unreadable
        return path.stat().st_size if path.is_file() else 0
    return 0


def _read_about(path: Path) -> dict[str, Any] | None:
    """Read about.json: an empty dictionary if it is missing, None if it is damaged."""
    try:
        about = read_json(path, _MAX_ABOUT_BYTES)
    except FileNotFoundError:
        return {}
    except PlainDataError:
        return None
    return about if isinstance(about, dict) else None
