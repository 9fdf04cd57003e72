"""The command `pneumo`."""

import time
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import rich
import typer
from rich.table import Table

from pneumo.entries import KINDS, Entry, entries, remove
from pneumo.errors import ConfigError, PneumoError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
cache = typer.Typer(no_args_is_help=True)
app.add_typer(cache, name="cache", help="List and delete what runs have cached.")

_FOLDER = typer.Option("--dir", help="The caches' folder: paths.cache_dir of the runs.", show_default=True)


@app.callback()
def _group() -> None:
    """Tools around train.py and sweep.py."""


@cache.callback()
def _cache() -> None:
    """List and delete what runs have cached: decoded images, features, groups of near duplicates, phantoms.

    All of it may go at any time: the next run computes what it needs anew.
    """


@cache.command("list")
def list_entries(folder: Annotated[Path, _FOLDER] = Path("outputs/cache")) -> None:
    """List the entries of the cache, the largest first.

    Example: pneumo cache list --dir /scratch/cache
    """
    found = _find(folder)
    table = Table(title=f"{folder}: {len(found)} entries, {sum(entry.bytes for entry in found) / 1e6:,.1f} MB")
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
    kind: Annotated[str | None, typer.Option(help="Only images, features, duplicates or phantoms.")] = None,
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
    kinds = KINDS if keys else ("images", "features", "duplicates")
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
            rich.print(f"kept {entry.kind}/{entry.key}: a process is building it")
    rich.print(f"deleted {len(deleted)} of {len(found)} entries, {sum(entry.bytes for entry in deleted) / 1e6:,.1f} MB")


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Folders of sweeps, or of single runs.", metavar="SWEEP...")],
    output: Annotated[Path | None, typer.Option(help="Folder to write to; by default that of a single sweep.")] = None,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Test the mean of all runs' probabilities too; written to ensemble/.")
    ] = False,
    card: Annotated[
        bool, typer.Option("--model-card", help="Write MODEL_CARD.md of a single run, to its folder or --output.")
    ] = False,
) -> None:
    """Print the leaderboard of sweeps beside the study's numbers, and write it: HTML, Markdown, CSV, figures.

    Rows that share a letter cannot be told apart on the test images. Of two or three rows it prints all differences, of
    several sweeps those of the same network and optimizer, of folds what they come to together, and of a single run
    what was lost from validation to test. Of several sweeps, or of single runs, it is written only to a folder that
    --output names.

    Examples: pneumo report outputs/sweep/study; pneumo report outputs/sweep/study outputs/sweep/robust --output board;
    pneumo report RUN_A RUN_B; pneumo report outputs/sweep/robust --ensemble; pneumo report RUN --model-card
    """
    from pneumo.evaluation.reports import write_reports

    single = any((folders[0] / name).is_file() for name in ("results.json", "status.json"))
    if card and (len(folders) > 1 or not single):
        raise ConfigError(
            f"--model-card is for one run that has finished, and {', '.join(map(str, folders))} is not one: name its "
            "folder, such as outputs/sweep/study/resnext-sgd-s0."
        )
    folder = folders[0] if output is None and len(folders) == 1 and not single else output
    try:
        write_reports(folders, folder, ensemble, card)
    except OSError as error:
        raise ConfigError(
            f"The report cannot be written to {folder or folders[0]} ({error.strerror}): name another folder as "
            "--output."
        ) from error
    if folder is None:
        rich.print("[dim]The leaderboard was not written: --output FOLDER writes it.[/dim]")


@app.command()
def audit(
    root: Annotated[Path, typer.Argument(help="Folder of train/, val/ or test/, or of one folder per class.")],
    json: Annotated[Path | None, typer.Option(help="File to write all findings to, as JSON.")] = None,
    html: Annotated[Path | None, typer.Option(help="File to write a page with pictures to.")] = None,
    classes: Annotated[str, typer.Option(help="Folders that are classes, such as A,B; by default all.")] = "",
    strict: Annotated[bool, typer.Option("--strict", help="End with status 1 if there is an error.")] = False,
) -> None:
    """Tell what in a data set could make a network's numbers a lie, before anything is trained.

    It finds unreadable files, copies within and across splits, one film under two classes, patients in several splits,
    and how well labels can be guessed without a look at the lungs. docs/DATA.md explains each check.

    Examples: pneumo audit data/chest_xray; pneumo audit data/chest_xray --html audit.html --json audit.json;
    pneumo audit scans --classes NORMAL,COVID,PNEUMONIA --strict
    """
    from pneumo.audit.command import run_audit

    names = [name.strip() for name in classes.split(",") if name.strip()]
    if run_audit(root, names, json, html) and strict:
        raise typer.Exit(1)


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="Of a run, such as RUN/checkpoints/best.ckpt.")],
    output: Annotated[Path, typer.Option(help="File to write: .onnx, or .pt2 for PyTorch.", show_default=False)],
    int8: Annotated[bool, typer.Option("--int8", help="Quantise the network: a quarter of the size.")] = False,
    data: Annotated[
        Path | None, typer.Option(help="Folder of train/ and test/; by default phantoms are drawn.")
    ] = None,
) -> None:
    """Write a checkpoint's network, and all that its answers hang on, to one file that other programs can run.

    The file is opened anew and compared with the checkpoint; it is kept only if their probabilities are the same within
    0.0001. Sizes and latencies are printed. docs/EXPORT.md tells what is in it. Nothing that it answers is a diagnosis.

    Examples: pneumo export best.ckpt --output pneumonia.onnx; pneumo export best.ckpt --output pneumonia.pt2;
    pneumo export best.ckpt --output small.onnx --int8 --data data/chest_xray
    """
    from pneumo.exporting.command import run_export

    run_export(checkpoint, output, int8, data)


def main() -> None:
    """Run the command; a user's mistake gets one paragraph and status 1."""
    try:
        app()
    except PneumoError as error:
        typer.echo(str(error), err=True)
        raise SystemExit(1) from None


def _find(folder: Path) -> list[Entry]:
    if not folder.is_dir():
        raise ConfigError(f"There is no folder {folder}: name the runs' paths.cache_dir as --dir FOLDER.")
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
    parts = [str(about[name]) for name in ("architecture",) if name in about]
    if "images" in about:
        parts.append(f"{about['images']:,} images at {about['image_size']} pixels")
    if "views" in about:
        parts.append(f"{about['views']} augmented views")
    if "precision" in about:
        parts.append(f"{about['precision']} on {about['device']}")
    return ", ".join([*parts, *([] if entry.whole else ["unfinished: the next run goes on with it"])])
