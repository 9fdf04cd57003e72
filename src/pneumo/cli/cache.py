"""The subcommands of `pneumo cache`."""

import time
from pathlib import Path
from typing import Annotated

import rich
import typer

from pneumo.common.terminal import PlainTable, print_line
from pneumo.errors import ConfigError

_FOLDER = typer.Option(
    "--dir", help="The caches' folder: paths.cache_dir of the runs.", show_default=True, readable=False
)
cache = typer.Typer(no_args_is_help=True)


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
    from pneumo.data.cache_inventory import contents, find_entries

    found = find_entries(folder)
    table = PlainTable(title=f"{folder}: {len(found)} entries, {sum(entry.bytes for entry in found) / 1e6:,.1f} MB")
    for name in ("kind", "key", "MB", "last used", "what"):
        table.add_column(name, justify="right" if name == "MB" else "left", no_wrap=name != "what")
    for entry in found:
        table.add_row(entry.kind, entry.key, f"{entry.bytes / 1e6:,.1f}", _ago(entry.used), contents(entry))
    rich.print(table)


def _ago(then: float) -> str:
    seconds = max(time.time() - then, 0)
    for length, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {name} ago"
    return "just now"


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
    from pneumo.data.cache_inventory import KINDS, find_entries, foreign_files, remove, require_known, select

    if not (keys or everything or unused is not None or kind is not None):
        raise ConfigError(
            "Say what to delete: --all, --unused DAYS, --kind KIND or keys; `pneumo cache list` shows them."
        )
    if unused is not None and not unused >= 0:
        raise ConfigError(f"--unused {unused} must be a number of days from 0, such as --unused 30.")
    found = find_entries(folder)
    require_known("key", keys or [], {entry.key for entry in found}, folder)
    require_known("--kind", [] if kind is None else [kind], KINDS, folder)
    deleted = []
    for entry in select(found, keys or [], kind, unused or 0):
        if remove(entry):
            deleted.append(entry)
        else:
            foreign = foreign_files(entry)
            why = f"pneumo did not write {foreign[0]}" if foreign else "a process is building it"
            print_line(f"kept {entry.kind}/{entry.key}: {why}")
    print_line(f"deleted {len(deleted)} of {len(found)} entries, {sum(entry.bytes for entry in deleted) / 1e6:,.1f} MB")
