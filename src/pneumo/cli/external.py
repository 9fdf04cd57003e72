"""The subcommands of `pneumo` for labelled images of other sources."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pneumo.cli.examples import examples
from pneumo.cli.parameters import (
    BatchSize,
    Checkpoint,
    Columns,
    Device,
    Labels,
    Mapping,
    Preset,
    RunCheckpoint,
    path_argument,
    path_option,
    select_data,
)
from pneumo.errors import ConfigError

external = typer.Typer()  # `pneumo.cli.commands` adds its commands to the command `pneumo`

Data = Annotated[
    list[Path] | None,
    path_argument(help="Class folders, splits or CSV tables.", metavar="DATA"),
]
Split = Annotated[str, typer.Option(help="train, val, test or all.")]


@external.command(
    epilog=examples(
        "EXTERNAL",
        "pneumo evaluate best.ckpt scans --html evaluation.html",
        "pneumo evaluate best.ckpt scans --labels labels.csv --by view,sex,age",
        "pneumo evaluate best.ckpt --labels site_a.csv --labels site_b.csv",
        "pneumo evaluate best.ckpt scans --prevalence 0.05,0.2 --stress",
        "pneumo evaluate best.ckpt images --labels nih.csv --preset nih",
        "pneumo evaluate RUN/checkpoints/best.ckpt scans --against other.ckpt",
        "pneumo evaluate RUN/checkpoints/best.ckpt scans --record",
    )
)
def evaluate(
    checkpoint: Checkpoint,
    data: Data = None,
    labels: Labels = None,
    preset: Preset = None,
    column: Columns = None,
    mapping: Mapping = None,
    split: Split = "test",
    by: Annotated[list[str] | None, typer.Option(help="Columns of subgroups: view,sex,age.")] = None,
    prevalence: Annotated[list[str] | None, typer.Option(help="Prevalences for PPV and NPV: 0.05,0.2.")] = None,
    against: Annotated[Path | None, path_option(help="Checkpoint to compare with.")] = None,
    run: Annotated[Path | None, path_option(help="Run folder of the checkpoint.")] = None,
    training_data: Annotated[Path | None, path_option(help="Training images, if not those of RUN.")] = None,
    stress: Annotated[bool, typer.Option("--stress", help="Also evaluate corrupted images.")] = False,
    mined_labels: Annotated[bool, typer.Option("--mined-labels", help="Labels were extracted from reports.")] = False,
    record: Annotated[bool, typer.Option("--record", help="Add the results to the leaderboard.")] = False,
    json: Annotated[Path | None, path_option(help="Write all results to this JSON file.")] = None,
    csv: Annotated[Path | None, path_option(help="Write predictions to this CSV file.")] = None,
    html: Annotated[Path | None, path_option(help="Write a report to this HTML file.")] = None,
    batch_size: BatchSize = None,
    device: Device = "auto",
) -> None:
    """Evaluate a checkpoint on labelled images. Not a medical device."""
    from pneumo.inference.evaluate.evaluation import EvaluationOptions
    from pneumo.inference.external_validation import OutputFiles, run_evaluate

    options = EvaluationOptions(
        by=_split_list(by),
        prevalences=_parse_fractions("--prevalence", prevalence),
        run=run,
        training_data=training_data,
        stress=stress,
        mined_labels=mined_labels,
    )
    selection = select_data(data, labels, preset, column, mapping, split)
    run_evaluate(checkpoint, selection, options, against, OutputFiles(json, csv, html), batch_size, device, record)


@external.command(
    epilog=examples(
        "EXTERNAL",
        "pneumo adapt best.ckpt local --output adapted.ckpt",
        "pneumo adapt best.ckpt local.csv --output new.ckpt --width 0.05",
        "pneumo adapt best.ckpt local.csv --output new.ckpt --rule youden",
        "pneumo adapt best.ckpt local.csv --output new.ckpt --rule sensitivity",
    )
)
def adapt(
    checkpoint: RunCheckpoint,
    output: Annotated[Path, path_option(help="New checkpoint, .ckpt.", show_default=False)],
    data: Data = None,
    labels: Labels = None,
    preset: Preset = None,
    column: Columns = None,
    mapping: Mapping = None,
    split: Split = "test",
    rule: Annotated[str, typer.Option(help="Rule, such as youden or sensitivity.")] = "smoothed",
    target: Annotated[float | None, typer.Option(help="Required rate; by default 0.9.")] = None,
    width: Annotated[float, typer.Option(help="Interval width for images needed.")] = 0.1,
    json: Annotated[Path | None, path_option(help="Write the results to this JSON file.")] = None,
    batch_size: BatchSize = None,
    device: Device = "auto",
) -> None:
    """Adapt a checkpoint to another site. Not a medical device."""
    from pneumo.inference.adapt.adapter import AdaptationOptions, run_adapt

    selection = select_data(data, labels, preset, column, mapping, split)
    run_adapt(checkpoint, selection, output, json, AdaptationOptions(rule, target, width), batch_size, device)


def _split_list(texts: list[str] | None) -> list[str]:
    """Return the names in texts separated by commas, each once."""
    names = (name.strip() for text in texts or () for name in text.split(","))
    return list(dict.fromkeys(filter(None, names)))


def _parse_fractions(option: str, texts: list[str] | None) -> list[float]:
    try:
        return list(dict.fromkeys(map(float, _split_list(texts))))
    except ValueError:
        given = ",".join(texts or ())
        raise ConfigError(f"{option} {given!r} must be numbers separated by commas, such as 0.05,0.2.") from None
