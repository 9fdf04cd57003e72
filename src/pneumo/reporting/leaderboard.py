"""The leaderboard of sweeps and runs as CSV, Markdown, HTML, figures and TensorBoard images."""

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
    HEADERS,
    Comparison,
    cells,
    compare,
    comparison_notes,
    comparison_table,
    comparisons_csv,
)
from pneumo.reporting.external_sets import add_external_sets
from pneumo.reporting.figures.charts import draw_gap
from pneumo.reporting.figures.external_figure import draw_external
from pneumo.reporting.figures.leaderboard_figures import draw
from pneumo.reporting.figures.run_figures import CAPTIONS
from pneumo.reporting.figures.style import save, write_images
from pneumo.reporting.generalization import GeneralizationGap, describe_gap, gap_table, read_gap
from pneumo.reporting.leaderboard_table import columns, to_csv, to_markdown, to_terminal
from pneumo.reporting.pooling import combine_runs, describe_pooled, folds_csv, pool, report_ensemble
from pneumo.reporting.rendering import render
from pneumo.reporting.rows import Row, build_rows
from pneumo.reporting.run_report import write_model_card
from pneumo.reporting.run_summary import STATE_NOTES
from pneumo.runs.collection import Run, collect, is_run

_CAPTIONS = {
    "accuracy": "Test accuracy with 95 % interval, next to the accuracy published in the study where available.",
    "roc": "ROC curves on the test images, one line per seed.",
    "shift": CAPTIONS["shift"],
    "external": "AUROC on the internal test set and on external sets, with 95 % intervals.",
    "time": "Test accuracy against training time. The time to fill caches is not included.",
}
_STATE_NOTES = {
    **STATE_NOTES,
    "unfinished": "the run is in progress or was interrupted; repeat the command of the sweep to resume it.",
}


def report_folder(folders: Sequence[Path], output: Path | None) -> Path | None:
    """Return the output folder: `output`, else the folder of a single sweep, else None (print only)."""
    return folders[0] if output is None and len(folders) == 1 and not is_run(folders[0]) else output


@contextmanager
def reporting_to(folder: Path) -> Iterator[None]:
    """Raise a ConfigError that suggests --output if a report cannot be written."""
    try:
        yield
    except OSError as error:
        if not isinstance(error, FileError) and error.filename is not None and disk_error(error):
            raise  # a file of a run cannot be read
        raise ConfigError(
            f"The report cannot be written to {folder} ({error.strerror}). Set another folder with --output."
        ) from error


def write_reports(sweeps: Sequence[Path], folder: Path | None, ensemble: bool, card: bool) -> None:
    """Print and write the leaderboard and, if requested, an ensemble and a model card.

    Args:
        sweeps: Folders of sweeps or of single runs.
        folder: Output folder. If None, the leaderboard is only printed, and a model card goes to the run's folder.
        ensemble: Whether to evaluate the ensemble of the runs.
        card: Whether to write a model card, which requires a single run.

    Raises:
        ConfigError: A sweep has no run, or the runs cannot be combined.
    """
    if card and not (len(sweeps) == 1 and is_run(sweeps[0])):
        raise ConfigError(
            f"--model-card requires the folder of one finished run, and {', '.join(map(str, sweeps))} is not one. Use "
            "a folder such as outputs/sweep/study/resnext-sgd-s0."
        )
    combined = combine_runs(sweeps, folder) if ensemble else None
    write_leaderboard(sweeps, folder)
    if combined:
        report_ensemble(combined, folder)
    if card:
        write_model_card(sweeps[0], folder or sweeps[0])


def write_leaderboard(sweeps: Sequence[Path], folder: Path | None) -> None:
    """Print the leaderboard and write leaderboard.csv, .md, .html, comparisons.csv, figures/ and TensorBoard images.

    If `folder` is None, the leaderboard is only printed.
    """
    runs = collect(sweeps)
    external = add_external_sets(build_rows(runs))
    comparison = compare(external.rows)
    rows = comparison.rows
    single = runs[0].results if len(runs) == 1 else None
    gap = None if single is None or single["task"] != "pneumonia" else read_gap(runs[0].folder, single)
    title = "Leaderboard: " + ", ".join(dict.fromkeys(run.sweep for run in runs))
    pooled = pool(rows)
    notes = [*comparison_notes(comparison), *external.notes, *(describe_pooled(each, rows) for each in pooled)]
    if isinstance(gap, GeneralizationGap):
        notes.append(describe_gap(gap))
    if folder is None:
        _print(comparison, title, gap, notes)
        return
    figures = draw(rows)
    if isinstance(gap, GeneralizationGap) and single:
        figures["shift"] = draw_gap(gap, single)
    if external.sets:
        figures["external"] = draw_external(rows)
    all_notes = [*table_notes(rows), *notes]
    rendered = save(figures, folder / "figures")
    write_images(folder / "leaderboard", {f"leaderboard/{name}": png for name, png in rendered["png"].items()})
    write_text(folder / "leaderboard.csv", to_csv(runs, external.sets))
    write_text(folder / "leaderboard.md", to_markdown(rows, all_notes, title))
    write_text(folder / "leaderboard.html", _to_html(comparison, runs, all_notes, title, rendered["svg"]))
    write_text(folder / "comparisons.csv", comparisons_csv(comparison.pairs))
    if pooled:
        write_text(folder / "folds.csv", folds_csv(pooled, rows))
    _print(comparison, title, gap, notes)
    print_line(f"{'leaderboard':<12} {folder / 'leaderboard.html'}, .md and .csv, comparisons.csv")


def _to_html(
    comparison: Comparison, runs: Sequence[Run], notes: Sequence[str], title: str, figures: Mapping[str, bytes]
) -> str:
    """Render the HTML page; `figures` has SVG files by name."""
    rows = comparison.rows
    shown = columns(rows)
    states = [run.state for run in runs]
    return render(
        "leaderboard.html",
        title=title,
        counts={state: states.count(state) for state in dict.fromkeys(states)},
        columns=shown,
        rows=[(row, [(column.show(row), column.value and column.value(row)) for column in shown]) for row in rows],
        pairs=[(pair, cells(pair, rows)) for pair in comparison.pairs],
        headers=HEADERS,
        images=comparison.images,
        notes=notes,
        figures=[(name, _CAPTIONS[name], svg) for name, svg in figures.items()],
    )


def _print(comparison: Comparison, title: str, gap: GeneralizationGap | str | None, notes: Sequence[str]) -> None:
    """Print the table, a short table of differences, and the change from validation to test of a single run."""
    console = rich.get_console()
    console.print(to_terminal(comparison.rows, title, console))
    if differences := comparison_table(comparison, console.width):
        console.print(differences)
    if isinstance(gap, GeneralizationGap):
        console.print(gap_table(gap))
    elif gap:
        notes = [*notes, f"Validation and test are not compared: {gap}."]
    for note in notes:
        print_line(note, style="dim", wrap=True)


def table_notes(rows: Sequence[Row]) -> list[str]:
    """Return the notes that explain the table's columns, sorting and states."""
    sizes = sorted({row.test_size for row in rows if row.finished})
    notes = []
    if sizes:
        images = " or ".join(f"{size:,}" for size in sizes)
        notes.append(
            f"Accuracies are measured on {images} test images, with 95 % Wilson intervals that account for several "
            "images per patient. More seeds do not narrow the intervals; ± is the standard deviation over seeds."
        )
    if len(sizes) > 1 or len({str(results["data"]) for row in rows for results in row.finished}) > 1:
        notes.append("These runs were tested on different data; do not compare their numbers.")
    if any(row.first.trial for row in rows):
        notes.append("Trials are sorted by validation loss: selecting them on the test set would bias its results.")
    if any(row.comparable for row in rows):
        notes.append("study: as published by Montalico and Herrera; difference: this run minus the study.")
    elif any(row.study and row.finished for row in rows):
        notes.append(
            "The study was tested on the Kermany radiographs and these runs on other images. Its numbers are shown "
            "for orientation only, without differences."
        )
    if any(row.settings_tag for row in rows):
        notes.append("#: rows with the same names but different settings; see .hydra/config.yaml in each run folder.")
    notes += _unnamed_differences(rows)
    states = {run.state for row in rows for run in row.runs}
    notes += [f"{state}: {text}" for state, text in _STATE_NOTES.items() if state in states]
    notes += [f"{run.name} {run.state}: {run.reason}" for row in rows for run in row.runs if run.reason]
    return notes


def _unnamed_differences(rows: Iterable[Row]) -> list[str]:
    """Describe settings that differ between rows of one sweep and network without being part of their names."""
    by_setting: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for name in ("epochs", "batch_size", "image_size", "experiment", "data"):
        for row in rows:
            if not row.first.setting:
                by_setting[row.first.sweep, row.first.model, name] |= {str(results[name]) for results in row.finished}
    return [
        f"{sweep}, {model}: the rows differ in {name} ({' and '.join(sorted(values))})."
        for (sweep, model, name), values in by_setting.items()
        if len(values) > 1
    ]
