"""The subcommands of `pneumo`, and what becomes of their errors."""

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import rich
import typer

from pneumo.cli.cache import cache
from pneumo.common.disk import mistake_behind, quiet_threads
from pneumo.common.streams import guarded_output
from pneumo.common.terminal import warn
from pneumo.errors import PneumoError

# What cannot be read is explained where it is read, as what is damaged: in one paragraph, with status 1.
_argument, _option = partial(typer.Argument, readable=False), partial(typer.Option, readable=False)
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(cache, name="cache", help="List and delete what runs have cached.")

_Sweeps = Annotated[list[Path], _argument(help="Folders of sweeps, or of single runs.", metavar="SWEEP...")]
_Run = Annotated[Path, _argument(help="Folder of a finished run.", metavar="RUN")]
_RunOutput = Annotated[Path | None, _option(help="Folder to write to; by default the run's.")]
_Checkpoint = Annotated[Path, _argument(help="Such as RUN/checkpoints/best.ckpt.", metavar="CHECKPOINT")]
_Device = Annotated[str, typer.Option(help="auto, cpu or cuda; auto takes a GPU if there is one.")]


def _examples(*lines: str) -> str:
    return "\n".join(("\b", "Examples:", *lines))  # after a backspace Typer keeps the ends of lines


@app.callback()
def _group() -> None:
    """Tools around train.py and sweep.py."""


@app.command(
    epilog=_examples(
        "pneumo report outputs/sweep/study",
        "pneumo report outputs/sweep/study outputs/sweep/robust --output board",
        "pneumo report RUN_A RUN_B",
    )
)
def report(
    folders: _Sweeps,
    output: Annotated[Path | None, _option(help="Folder to write to; by default that of a single sweep.")] = None,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Older form of `pneumo ensemble`; the board comes first.")
    ] = False,
    card: Annotated[
        bool, typer.Option("--model-card", help="Older form of `pneumo model-card`; the board comes first.")
    ] = False,
) -> None:
    """Print and write the leaderboard of sweeps or runs, and how they differ.

    Writes leaderboard.html, .md and .csv, comparisons.csv and figures/; for runs
    or several sweeps only to --output. Of one run it prints the change from
    validation to test, and writes the page of `pneumo report-run`.
    """
    from pneumo.reporting.leaderboard import report_folder, reporting_to, write_reports

    folder = report_folder(folders, output)
    finished = len(folders) == 1 and os.path.isfile(folders[0] / "results.json")
    with reporting_to(folder or folders[0]):
        write_reports(folders, folder, ensemble, card)
        if finished:
            _write_page(folders[0], folder or folders[0])
    if folder is None and not finished:
        rich.print("[dim]The leaderboard was not written: --output FOLDER writes it.[/dim]")


@app.command(epilog=_examples("pneumo report-run RUN", "pneumo report-run RUN --output pages"))
def report_run(run: _Run, output: _RunOutput = None) -> None:
    """Write report.html, a page of one run: metrics, figures, films with saliency maps."""
    from pneumo.reporting.leaderboard import reporting_to

    with reporting_to(output or run):
        _write_page(run, output or run)


def _write_page(folder: Path, place: Path) -> None:
    from pneumo.inference.explain.run_maps import explain_run
    from pneumo.reporting.run_report import read_run, write_run_page

    run = read_run(folder)
    write_run_page(run, explain_run(run), place / "report.html")


@app.command(epilog=_examples("pneumo model-card RUN", "pneumo model-card RUN --output cards"))
def model_card(run: _Run, output: _RunOutput = None) -> None:
    """Write MODEL_CARD.md of one run: training, test results, intended use, limits."""
    from pneumo.reporting.leaderboard import reporting_to
    from pneumo.reporting.run_report import write_model_card

    with reporting_to(output or run):
        write_model_card(run, output or run)


@app.command(epilog=_examples("pneumo ensemble outputs/sweep/robust", "pneumo ensemble RUN_A RUN_B --output board"))
def ensemble(
    folders: _Sweeps,
    output: Annotated[Path | None, _option(help="Folder that gets ensemble/; by default a single sweep's.")] = None,
) -> None:
    """Test the mean of the runs' probabilities as one classifier.

    Writes ensemble/predictions.csv and ensemble/ensemble.json.
    """
    from pneumo.reporting.leaderboard import report_folder, reporting_to
    from pneumo.reporting.pooling import combine_runs, report_ensemble

    folder = report_folder(folders, output)
    with reporting_to(folder or folders[0]):
        report_ensemble(combine_runs(folders, folder), folder)


@app.command(
    epilog=_examples(
        "pneumo audit data/chest_xray",
        "pneumo audit data/chest_xray --html audit.html --json audit.json",
        "pneumo audit scans --classes NORMAL,COVID,PNEUMONIA --strict",
    )
)
def audit(
    root: Annotated[Path, _argument(help="Folder of train/, val/ or test/, or of one folder per class.")],
    json: Annotated[Path | None, _option(help="File to write all findings to, as JSON.")] = None,
    html: Annotated[Path | None, _option(help="File to write a page with pictures to.")] = None,
    classes: Annotated[str, typer.Option(help="Folders that are classes, such as A,B; by default all.")] = "",
    strict: Annotated[bool, typer.Option("--strict", help="End with status 1 if there is an error.")] = False,
) -> None:
    """Find what in a data set can make test results misleading, before training.

    Checks for unreadable and doubtful files, copies within and across splits,
    one film under two classes, patients in several splits, and labels that can
    be guessed without looking at the lungs. docs/DATA.md explains each check.
    """
    from pneumo.audit.inspection import run_audit

    names = [name.strip() for name in classes.split(",") if name.strip()]
    if run_audit(root, names, json, html) and strict:
        raise typer.Exit(1)


@app.command(
    epilog=_examples(
        "pneumo predict best.ckpt film.dcm",
        "pneumo predict best.ckpt scans 'more/**/*.png' --csv answers.csv",
        "pneumo predict best.ckpt scans --explain maps",
        "pneumo predict best.ckpt scans | cut -f 1,3",
    )
)
def predict(
    checkpoint: _Checkpoint,
    inputs: Annotated[list[str], typer.Argument(help="Files, folders, or patterns in quotes.", metavar="INPUTS...")],
    json: Annotated[Path | None, _option(help="File to write all answers to, as JSON.")] = None,
    csv: Annotated[Path | None, _option(help="File to write all answers to, a row a film.")] = None,
    explain: Annotated[Path | None, _option(help="Folder for pictures of where answers come from.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Films at once; by default what is fast here.")] = None,
    device: _Device = "auto",
) -> None:
    """Predict the probability of pneumonia in images or DICOM files. Not a medical device.

    Prints a table on a terminal, for more than 40 files a summary, and in a pipe
    one line a file with tabs between the cells. Files that cannot be read are
    named, and the status is then 1. docs/PREDICTION.md lists formats, columns
    and remarks.
    """
    from pneumo.inference.batch_inference import run_predict

    if not run_predict(checkpoint, inputs, json, csv, explain, batch_size, device):
        raise typer.Exit(1)


@app.command(epilog=_examples("pneumo serve best.ckpt --open", "pneumo serve best.ckpt --port 0"))
def serve(
    checkpoint: _Checkpoint,
    host: Annotated[str, typer.Option(help="Address to serve at; others than 127.0.0.1 let others in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to serve at; 0 is any that is free.")] = 8000,
    browse: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    device: _Device = "auto",
) -> None:
    """Serve a page on this machine that predicts one film at a time. Not a medical device.

    The page shows the film, the probability of pneumonia, remarks and a saliency
    map. Films are processed on this machine and never stored.
    """
    from pneumo.inference.serve.server import run_serve

    run_serve(checkpoint, host, port, browse, device)


@app.command(
    epilog=_examples(
        "pneumo export best.ckpt --output pneumonia.onnx",
        "pneumo export best.ckpt --output pneumonia.pt2",
        "pneumo export best.ckpt --output small.onnx --int8 --data data/chest_xray",
    )
)
def export(
    checkpoint: Annotated[Path, _argument(help="Of a run, such as RUN/checkpoints/best.ckpt.")],
    output: Annotated[Path, _option(help="File to write: .onnx, or .pt2 for PyTorch.", show_default=False)],
    int8: Annotated[bool, typer.Option("--int8", help="Quantise the network: a third of the size.")] = False,
    data: Annotated[Path | None, _option(help="Folder of train/ and test/; by default phantoms are drawn.")] = None,
) -> None:
    """Export a checkpoint's network with all its settings to one file. Not a medical device.

    The file is opened again and kept only if its probabilities are those of the
    checkpoint within 0.0001. Prints sizes and latencies. docs/EXPORT.md
    describes it.
    """
    from pneumo.inference.export.exporter import run_export

    run_export(checkpoint, output, int8, data)


def main() -> None:
    """Run the command; a user's mistake gets one paragraph and status 1."""
    with guarded_output(), quiet_threads():
        try:
            app()
        except (PneumoError, OSError) as error:
            mistake = mistake_behind(error)
            if mistake is None:
                raise
            warn(mistake[1])
            raise SystemExit(1) from None
