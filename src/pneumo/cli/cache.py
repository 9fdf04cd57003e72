"""The subcommands of `pneumo cache`."""

import time
from pathlib import Path
from typing import Annotated

import rich
import typer

from pneumo.cli.examples import examples
from pneumo.common.terminal import PlainTable, print_line
from pneumo.errors import ConfigError

_FOLDER = typer.Option("--dir", help="Cache folder.", show_default=True, readable=False)
cache = typer.Typer(no_args_is_help=True)


@cache.callback(
    epilog=examples("PERFORMANCE", "pneumo cache list", "pneumo cache clear --unused 30", "pneumo cache clear --all")
)
def _cache() -> None:
    """List and delete cached data."""


@cache.command("list", epilog=examples("PERFORMANCE", "pneumo cache list", "pneumo cache list --dir /scratch/cache"))
def list_entries(folder: Annotated[Path, _FOLDER] = Path("outputs/cache")) -> None:
    """List cache entries, largest first."""
    from pneumo.data.cache_inventory import describe_contents, find_entries

    entries = find_entries(folder)
    table = PlainTable(title=f"{folder}: {len(entries)} entries, {sum(entry.bytes for entry in entries) / 1e6:,.1f} MB")
    for name in ("kind", "key", "MB", "last used", "content"):
        table.add_column(name, justify="right" if name == "MB" else "left", no_wrap=name != "content")
    for entry in entries:
        table.add_row(
            entry.kind, entry.key, f"{entry.bytes / 1e6:,.1f}", _format_age(entry.used), describe_contents(entry)
        )
    rich.print(table)


def _format_age(timestamp: float) -> str:
    seconds = max(time.time() - timestamp, 0)
    for length, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {name} ago"
    return "just now"


@cache.command(
    epilog=examples(
        "PERFORMANCE",
        "pneumo cache clear --all",
        "pneumo cache clear --unused 30",
        "pneumo cache clear --kind features",
        "pneumo cache clear 37b56a3e1923f29c",
    )
)
def clear(
    keys: Annotated[list[str] | None, typer.Argument(help="Keys of the entries.", metavar="KEY")] = None,
    folder: Annotated[Path, _FOLDER] = Path("outputs/cache"),
    everything: Annotated[bool, typer.Option("--all", help="All entries except phantoms.")] = False,
    unused: Annotated[float | None, typer.Option(help="Entries unused for this many days, except phantoms.")] = None,
    kind: Annotated[str | None, typer.Option(help="Entries of this kind, such as features.")] = None,
) -> None:
    """Delete the cache entries that match all given conditions."""
    from pneumo.data.cache_inventory import KINDS, find_entries, foreign_files, remove, require_known_values, select

    if not (keys or everything or unused is not None or kind is not None):
        raise ConfigError(
            "No entries are selected. Use --all, --unused DAYS, --kind KIND or keys from `pneumo cache list`."
        )
    if unused is not None and not unused >= 0:
        raise ConfigError(f"--unused {unused} is out of range: it must be 0 or more days. Use a value such as 30.")
    entries = find_entries(folder)
    require_known_values("key", keys or [], {entry.key for entry in entries}, folder)
    require_known_values("--kind", [] if kind is None else [kind], KINDS, folder)
    deleted = []
    for entry in select(entries, keys or [], kind, unused or 0):
        if remove(entry):
            deleted.append(entry)
        else:
            foreign = foreign_files(entry)
            reason = f"pneumo did not write {foreign[0]}" if foreign else "a process is building it"
            print_line(f"kept {entry.kind}/{entry.key}: {reason}")
    size = sum(entry.bytes for entry in deleted) / 1e6
    print_line(f"deleted {len(deleted)} of {len(entries)} entries, {size:,.1f} MB")
