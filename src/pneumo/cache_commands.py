"""The commands `pneumo cache list` and `pneumo cache clear`."""

import time
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import rich
import typer

from pneumo.console import PlainTable, tell
from pneumo.entries import KINDS, Entry, entries, foreign_files, remove
from pneumo.errors import ConfigError
from pneumo.temporaries import remove_stale_below

cache = typer.Typer(no_args_is_help=True)

_FOLDER = typer.Option(
    "--dir", help="The caches' folder: paths.cache_dir of the runs.", show_default=True, readable=False
)


@cache.callback()
def _cache() -> None:
    """List and delete what runs have cached: images, features, means of channels, duplicates, manifests, phantoms.

    All of it may go at any time: the next run computes what it needs anew.
    """


@cache.command("list")
def list_entries(folder: Annotated[Path, _FOLDER] = Path("outputs/cache")) -> None:
    """List the entries of the cache, the largest first.

    Example: pneumo cache list --dir /scratch/cache
    """
    found = _find(folder)
    table = PlainTable(title=f"{folder}: {len(found)} entries, {sum(entry.bytes for entry in found) / 1e6:,.1f} MB")
    for name in ("kind", "key", "MB", "last used", "what"):
        table.add_column(name, justify="right" if name == "MB" else "left", no_wrap=name != "what")
    for entry in found:
        table.add_row(entry.kind, entry.key, f"{entry.bytes / 1e6:,.1f}", _ago(entry.used), _describe(entry))
    rich.print(table)


@cache.command()
def clear(
    keys: Annotated[list[str] | None, typer.Argument(help="Keys of entries to delete.")] = None,
    folder: Annotated[Path, _FOLDER] = Path("outputs/cache"),
    everything: Annotated[bool, typer.Option("--all", help="All but phantoms.")] = False,
    unused: Annotated[float | None, typer.Option(help="Only those not used for so many days.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind, such as features.")] = None,
) -> None:
    """Delete the entries for which all that is said holds; what a run is building stays, and phantoms not asked for.

    Examples: pneumo cache clear --unused 30; pneumo cache clear --kind features; pneumo cache clear 37b56a3e1923f29c
    """
    if not (keys or everything or unused is not None or kind is not None):
        raise ConfigError(
            "Say what to delete: --all, --unused DAYS, --kind KIND or keys; `pneumo cache list` shows them."
        )
    if unused is not None and not unused >= 0:
        raise ConfigError(f"--unused {unused} must be a number of days from 0, such as --unused 30.")
    found = _find(folder)
    _check("key", keys or [], {entry.key for entry in found}, folder)
    _check("--kind", [] if kind is None else [kind], set(KINDS), folder)
    oldest = time.time() - (unused or 0) * 86_400
    kinds = KINDS if keys else tuple(name for name in KINDS if name != "phantoms")
    chosen = [
        entry
        for entry in found
        if entry.used <= oldest
        and (not keys or entry.key in keys)
        and entry.kind in (kinds if kind is None else (kind,))
    ]
    deleted = [entry for entry in chosen if remove(entry)]
    for entry in chosen:
        if entry not in deleted:
            foreign = foreign_files(entry)
            why = f"pneumo did not write {foreign[0]}" if foreign else "a process is building it"
            tell(f"kept {entry.kind}/{entry.key}: {why}")
    tell(f"deleted {len(deleted)} of {len(found)} entries, {sum(entry.bytes for entry in deleted) / 1e6:,.1f} MB")


def _find(folder: Path) -> list[Entry]:
    if not folder.is_dir():
        raise ConfigError(f"There is no folder {folder}: name the runs' paths.cache_dir as --dir FOLDER.")
    remove_stale_below(folder, depth=2)
    return entries(folder)


def _check(name: str, given: Collection[str], known: Collection[str], folder: Path) -> None:
    if unknown := [value for value in given if value not in known]:
        raise ConfigError(
            f"{name} {', '.join(unknown)} is not one of {', '.join(sorted(known)) or 'none, as it is empty'}; "
            f"`pneumo cache list --dir {folder}` shows what there is."
        )


def _ago(then: float) -> str:
    seconds = max(time.time() - then, 0)
    for length, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {name} ago"
    return "just now"


def _describe(entry: Entry) -> str:
    about = entry.about
    if about is None:
        return f"unknown: its about.json is damaged; `pneumo cache clear {entry.key}` deletes it"
    parts = [str(about[name]) for name in ("architecture",) if name in about]
    if "images" in about:
        some = "some of " if "positions" in about else ""
        count = f"{about['images']:,}" if isinstance(about["images"], int) else about["images"]
        parts.append(f"{some}{count} images" + (f" at {about['image_size']} pixels" if "image_size" in about else ""))
    if "views" in about:
        parts.append(f"{about['views']} augmented views")
    if "device" in about:
        parts.append(f"on {about['device']}")
    return ", ".join([*parts, *([] if entry.whole else ["unfinished: the next run goes on with it"])])
