"""The subcommands of `pneumo`, and the handling of their errors."""

import os
from pathlib import Path
from typing import Annotated

import rich
import typer

from pneumo.cli.cache import cache
from pneumo.cli.examples import examples
from pneumo.cli.external import external
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
from pneumo.common.disk import find_user_error, suppress_thread_tracebacks
from pneumo.common.streams import guarded_output
from pneumo.common.terminal import warn
from pneumo.errors import PneumoError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(cache, name="cache")

_Sweeps = Annotated[list[Path], path_argument(help="Sweep or run folders.", metavar="FOLDER")]
_Run = Annotated[Path, path_argument(help="Folder of a finished run.", metavar="RUN")]
_RunOutput = Annotated[Path | None, path_option(help="Output folder; by default the run folder.")]
_SweepOutput = Annotated[Path | None, path_option(help="Output folder; by default the sweep folder.")]


@app.callback(
    epilog=examples(
        "GETTING_STARTED",
        "pneumo report outputs/sweep/study",
        "pneumo predict outputs/sweep/study/RUN/checkpoints/best.ckpt scan.dcm",
        "pneumo predict --help",
    )
)
def _group() -> None:
    """Analyse runs, audit datasets and use trained chest X-ray classifiers."""


@app.command(
    epilog=examples(
        "RESULTS",
        "pneumo report outputs/sweep/study",
        "pneumo report outputs/sweep/study outputs/sweep/robust --output reports",
        "pneumo report RUN_A RUN_B",
    )
)
def report(
    folders: _Sweeps,
    output: _SweepOutput = None,
    ensemble: Annotated[bool, typer.Option("--ensemble", help="Older form of `pneumo ensemble`.")] = False,
    card: Annotated[bool, typer.Option("--model-card", help="Older form of `pneumo model-card`.")] = False,
) -> None:
    """Print and write the leaderboard of sweeps or runs."""
    from pneumo.reporting.leaderboard import report_folder, reporting_to, write_reports

    folder = report_folder(folders, output)
    finished = len(folders) == 1 and os.path.isfile(folders[0] / "results.json")
    with reporting_to(folder or folders[0]):
        write_reports(folders, folder, ensemble, card)
        if finished:
            _write_page(folders[0], folder or folders[0])
    if folder is None and not finished:
        rich.print("[dim]The leaderboard was not saved. Use --output FOLDER to save it.[/dim]")


@app.command(epilog=examples("RESULTS", "pneumo report-run RUN", "pneumo report-run RUN --output pages"))
def report_run(run: _Run, output: _RunOutput = None) -> None:
    """Write an HTML report of a run with figures and saliency maps."""
    from pneumo.reporting.leaderboard import reporting_to

    with reporting_to(output or run):
        _write_page(run, output or run)


def _write_page(folder: Path, output: Path) -> None:
    from pneumo.inference.explain.report_saliency import explain_run
    from pneumo.reporting.run_report import read_run, write_run_page

    run = read_run(folder)
    write_run_page(run, explain_run(run), output / "report.html")


@app.command(epilog=examples("RESULTS", "pneumo model-card RUN", "pneumo model-card RUN --output cards"))
def model_card(run: _Run, output: _RunOutput = None) -> None:
    """Write the model card of a run, MODEL_CARD.md."""
    from pneumo.reporting.leaderboard import reporting_to
    from pneumo.reporting.run_report import write_model_card

    with reporting_to(output or run):
        write_model_card(run, output or run)


@app.command(
    epilog=examples(
        "RESULTS",
        "pneumo ensemble outputs/sweep/robust",
        "pneumo ensemble RUN_A RUN_B --output reports",
        "pneumo ensemble RUN_A RUN_B --checkpoint ensemble.ckpt",
    )
)
def ensemble(
    folders: _Sweeps,
    output: _SweepOutput = None,
    checkpoint: Annotated[Path | None, path_option(help="Write the ensemble as one .ckpt file.")] = None,
) -> None:
    """Evaluate the mean of the runs' probabilities as one classifier."""
    from pneumo.inference.ensemble_writer import run_ensemble

    run_ensemble(folders, output, checkpoint)


@app.command(
    epilog=examples(
        "AUDIT",
        "pneumo audit data/chest_xray",
        "pneumo audit data/chest_xray --html audit.html --json audit.json",
        "pneumo audit scans --classes NORMAL,COVID,PNEUMONIA --strict",
        "pneumo audit scans --labels labels.csv",
    )
)
def audit(
    root: Annotated[Path | None, path_argument(help="Class folders, splits or a CSV table.", metavar="ROOT")] = None,
    labels: Labels = None,
    preset: Preset = None,
    column: Columns = None,
    mapping: Mapping = None,
    json: Annotated[Path | None, path_option(help="Write all findings to this JSON file.")] = None,
    html: Annotated[Path | None, path_option(help="Write an HTML report to this file.")] = None,
    classes: Annotated[str, typer.Option(help="Classes, such as A,B; by default all.")] = "",
    strict: Annotated[bool, typer.Option("--strict", help="Exit with status 1 if there are errors.")] = False,
) -> None:
    """Find problems in a dataset that make test results misleading."""
    from pneumo.audit.inspection import run_audit

    names = [name.strip() for name in classes.split(",") if name.strip()]
    selection = select_data([root] if root is not None else None, labels, preset, column, mapping, "all")
    if run_audit(selection, names, json, html) and strict:
        raise typer.Exit(1)


@app.command(
    epilog=examples(
        "INFERENCE",
        "pneumo predict best.ckpt scan.dcm",
        "pneumo predict best.ckpt scans 'more/**/*.png' --csv predictions.csv",
        "pneumo predict best.ckpt scans --explain maps",
        "pneumo predict best.ckpt scans | cut -f 1,3",
    )
)
def predict(
    checkpoint: Checkpoint,
    inputs: Annotated[list[str], typer.Argument(help="Files, folders or patterns.", metavar="INPUT")],
    json: Annotated[Path | None, path_option(help="Write predictions to this JSON file.")] = None,
    csv: Annotated[Path | None, path_option(help="Write predictions to this CSV file.")] = None,
    explain: Annotated[Path | None, path_option(help="Write saliency maps to this folder.")] = None,
    batch_size: BatchSize = None,
    device: Device = "auto",
) -> None:
    """Predict pneumonia in image files. Not a medical device."""
    from pneumo.inference.batch_inference import run_predict

    if not run_predict(checkpoint, inputs, json, csv, explain, batch_size, device):
        raise typer.Exit(1)


@app.command(epilog=examples("INFERENCE", "pneumo serve best.ckpt --open", "pneumo serve best.ckpt --port 0"))
def serve(
    checkpoint: Checkpoint,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 is any free one.")] = 8000,
    browse: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    device: Device = "auto",
) -> None:
    """Serve a prediction page on this machine. Not a medical device."""
    from pneumo.inference.serve.server import run_serve

    run_serve(checkpoint, host, port, browse, device)


@app.command(
    epilog=examples(
        "INFERENCE",
        "pneumo export best.ckpt --output pneumonia.onnx",
        "pneumo export best.ckpt --output pneumonia.pt2",
        "pneumo export best.ckpt --output small.onnx --int8 --data data/chest_xray",
    )
)
def export(
    checkpoint: RunCheckpoint,
    output: Annotated[Path, path_option(help="Output file, .onnx or .pt2.", show_default=False)],
    int8: Annotated[bool, typer.Option("--int8", help="Quantise to 8 bits (.onnx only).")] = False,
    data: Annotated[Path | None, path_option(help="Dataset for the checks; by default synthetic.")] = None,
) -> None:
    """Export a checkpoint to ONNX or PyTorch. Not a medical device."""
    from pneumo.inference.export.exporter import run_export

    run_export(checkpoint, output, int8, data)


app.registered_commands += external.registered_commands


def main() -> None:
    """Run the command; a user error prints one paragraph and exits with status 1."""
    with guarded_output(), suppress_thread_tracebacks():
        try:
            app()
        except (PneumoError, OSError) as error:
            user_error = find_user_error(error)
            if user_error is None:
                raise
            warn(user_error[1])
            raise SystemExit(1) from None
