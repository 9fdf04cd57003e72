"""Arguments and options that several subcommands of `pneumo` have in common."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pneumo.data.selection import DataSelection

# Unreadable paths are errors of the reader, with status 1, and not usage errors of Typer.
path_argument, path_option = partial(typer.Argument, readable=False), partial(typer.Option, readable=False)

Checkpoint = Annotated[Path, path_argument(help="Checkpoint or .onnx file.", metavar="CHECKPOINT")]
RunCheckpoint = Annotated[Path, path_argument(help="Checkpoint of a run.", metavar="CHECKPOINT")]
Labels = Annotated[list[Path] | None, path_option(help="CSV table, of a folder or on its own.")]
Preset = Annotated[str | None, typer.Option(help="nih, rsna, chexpert or vindr.")]
Columns = Annotated[list[str] | None, typer.Option("--column", help='Rename a column: file="Image Index".')]
Mapping = Annotated[list[str] | None, typer.Option("--map", help='Rename a label: "No Finding=NORMAL".')]
BatchSize = Annotated[int | None, typer.Option(help="Batch size; by default the fastest.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


def select_data(
    data: list[Path] | None,
    labels: list[Path] | None,
    preset: str | None,
    column: list[str] | None,
    mapping: list[str] | None,
    split: str,
) -> DataSelection:
    """Build the selection of labelled data from the options that several commands have in common."""
    from pneumo.data.selection import DataSelection, parse_pairs

    return DataSelection(
        data or [],
        labels or [],
        preset,
        parse_pairs("--column", column or [], 'file="Image Index"'),
        parse_pairs("--map", mapping or [], '"No Finding=NORMAL"'),
        split,
    )
