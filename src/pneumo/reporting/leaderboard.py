"""The leaderboard of one or several sweeps, written as CSV, Markdown, HTML, figures and TensorBoard."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import rich

from pneumo.common.disk import FileError, disk_error
from pneumo.common.files import write_text
from pneumo.common.terminal import print_line
from pneumo.errors import ConfigError
from pneumo.reporting.comparison import (
    HEADS,
    Comparison,
    cells,
    compare,
    comparison_table,
    comparisons_csv,
    explain_comparison,
)
from pneumo.reporting.figures.charts import draw_shift
from pneumo.reporting.figures.leaderboard_figures import draw
from pneumo.reporting.figures.run_figures import CAPTIONS
from pneumo.reporting.figures.style import save, write_images
from pneumo.reporting.generalization import Shift, explain_shift, read_shift, shift_table
from pneumo.reporting.leaderboard_table import columns, to_csv, to_markdown, to_terminal
from pneumo.reporting.pooling import combine_runs, explain_pooled, folds_csv, pool, report_ensemble
from pneumo.reporting.rendering import render
from pneumo.reporting.rows import Row, rows
from pneumo.reporting.run_report import write_model_card
from pneumo.runs.collection import Run, collect, is_run

_CAPTIONS = {
    "accuracy": "Test accuracy with its 95 % interval, beside the study's where it has one.",
    "roc": "ROC curves; each of several seeds has its own line.",
    "shift": CAPTIONS["shift"],
    "time": "What accuracy costs: test accuracy against the time of training, caches not included.",
}
_STATES = {
    "collapsed": "every test image got the same answer, so the accuracy is only that class's share.",
    "partial": "images of the test set were left out, so these figures are no result.",
    "unfinished": "running, or its process was ended; the sweep's command goes on with it.",
}


def report_folder(folders: Sequence[Path], output: Path | None) -> Path | None:
    """Return where reports of several runs are written: by default the folder of a single sweep, else nowhere."""
    return folders[0] if output is None and len(folders) == 1 and not is_run(folders[0]) else output


@contextmanager
def reporting_to(folder: Path) -> Iterator[None]:
    """Raise a ConfigError that names --output where a report cannot be written."""
    try:
        yield
    except OSError as error:
        if not isinstance(error, FileError) and error.filename is not None and disk_error(error):
            raise  # a file of a run cannot be read
        raise ConfigError(
            f"The report cannot be written to {folder} ({error.strerror}): name another folder as --output."
        ) from error


def write_reports(sweeps: Sequence[Path], folder: Path | None, ensemble: bool, card: bool) -> None:
    """Write and print the leaderboard and what else was asked for.

    A model card is of one run. Without a folder to write to only the leaderboard is printed, and a model card goes to
    its run's folder.

    Raises:
        ConfigError: There is no run in one of the sweeps, or the runs do not go together.
    """
    if card and not (len(sweeps) == 1 and is_run(sweeps[0])):
        raise ConfigError(
            f"--model-card is for one run that has finished, and {', '.join(map(str, sweeps))} is not one: name its "
            "folder, such as outputs/sweep/study/resnext-sgd-s0."
        )
    combined = combine_runs(sweeps, folder) if ensemble else None
    write_leaderboard(sweeps, folder)
    if combined:
        report_ensemble(combined, folder)
    if card:
        write_model_card(sweeps[0], folder or sweeps[0])


def write_leaderboard(sweeps: Sequence[Path], folder: Path | None) -> None:
    """Write leaderboard.csv, .md, .html, comparisons.csv, figures/ and their copies for TensorBoard; print the table.

    Without a folder to write to it only prints.
    """
    runs = collect(sweeps)
    comparison = compare(rows(runs))
    board = comparison.rows
    single = runs[0].results if len(runs) == 1 else None
    shift = None if single is None or single["task"] == "subtype" else read_shift(runs[0].folder, single)
    title = "Leaderboard: " + ", ".join(dict.fromkeys(run.sweep for run in runs))
    pooled = pool(board)
    notes = [*explain_comparison(comparison), *(explain_pooled(each, board) for each in pooled)]
    if isinstance(shift, Shift):
        notes.append(explain_shift(shift))
    if folder is None:
        _show(comparison, title, shift, notes)
        return
    figures = draw(board)
    if isinstance(shift, Shift) and single:
        figures["shift"] = draw_shift(shift, single)
    every = [*explain(board), *notes]
    rendered = save(figures, folder / "figures")
    write_images(folder / "leaderboard", {f"leaderboard/{name}": png for name, png in rendered["png"].items()})
    write_text(folder / "leaderboard.csv", to_csv(runs))
    write_text(folder / "leaderboard.md", to_markdown(board, every, title))
    write_text(folder / "leaderboard.html", _to_html(comparison, runs, every, title, rendered["svg"]))
    write_text(folder / "comparisons.csv", comparisons_csv(comparison.pairs))
    if pooled:
        write_text(folder / "folds.csv", folds_csv(pooled, board))
    _show(comparison, title, shift, notes)
    print_line(f"{'leaderboard':<12} {folder / 'leaderboard.html'}, .md and .csv, comparisons.csv")


def _to_html(
    comparison: Comparison, runs: Sequence[Run], notes: Sequence[str], title: str, figures: Mapping[str, bytes]
) -> str:
    """Render the page, with figures as SVG by their names."""
    board = comparison.rows
    shown = columns(board)
    states = [run.state for run in runs]
    return render(
        "leaderboard.html",
        title=title,
        counts={state: states.count(state) for state in dict.fromkeys(states)},
        columns=shown,
        rows=[(row, [(column.show(row), column.value and column.value(row)) for column in shown]) for row in board],
        pairs=[(pair, cells(pair, board)) for pair in comparison.pairs],
        heads=HEADS,
        images=comparison.images,
        notes=notes,
        figures=[(name, _CAPTIONS[name], svg) for name, svg in figures.items()],
    )


def _show(comparison: Comparison, title: str, shift: Shift | str | None, notes: Sequence[str]) -> None:
    """Print the table, the differences if they are few, and of a single run what changed since validation."""
    console = rich.get_console()
    console.print(to_terminal(comparison.rows, title, console))
    if differences := comparison_table(comparison, console.width):
        console.print(differences)
    if isinstance(shift, Shift):
        console.print(shift_table(shift))
    elif shift:
        notes = [*notes, f"No comparison of validation with test: {shift}."]
    for note in notes:
        print_line(note, style="dim", wrap=True)


def explain(board: Sequence[Row]) -> list[str]:
    """Say what one must know to read the table."""
    tested = sorted({row.tested for row in board if row.finished})
    notes = []
    if tested:
        images = " or ".join(f"{count:,}" for count in tested)
        notes.append(
            f"Accuracies are proportions of {images} test images. Their 95 % intervals (Wilson) allow for several "
            "images of a patient, and more seeds do not narrow them; ± is the standard deviation over seeds."
        )
    if len(tested) > 1 or len({str(results["data"]) for row in board for results in row.finished}) > 1:
        notes.append("These runs were tested on different data: their numbers are not for comparison.")
    if any(row.first.trial for row in board):
        notes.append("Trials are sorted by validation loss: chosen by the test set, its numbers would be too good.")
    if any(row.comparable for row in board):
        notes.append("study: as published by Montalico and Herrera; difference: ours less the study's.")
    elif any(row.study and row.finished for row in board):
        notes.append(
            "The study's numbers are of the Kermany radiographs and these runs' are of other images: they stand here "
            "for orientation, and no difference is given."
        )
    if any(row.hidden for row in board):
        notes.append("#: rows of the same words whose settings differ; .hydra/config.yaml of each run has them.")
    notes += _differences(board)
    states = {run.state for row in board for run in row.runs}
    notes += [f"{state}: {words}" for state, words in _STATES.items() if state in states]
    notes += [f"{run.name} {run.state}: {run.reason}" for row in board for run in row.runs if run.reason]
    return notes


def _differences(rows: Iterable[Row]) -> list[str]:
    """Say where rows of one sweep and network differ in what their names do not tell."""
    found: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for name in ("epochs", "batch_size", "image_size", "experiment", "data"):
        for row in rows:
            if not row.first.setting:
                found[row.first.sweep, row.first.model, name] |= {str(results[name]) for results in row.finished}
    return [
        f"{sweep}, {model}: the rows differ in {name} ({' and '.join(sorted(values))})."
        for (sweep, model, name), values in found.items()
        if len(values) > 1
    ]
