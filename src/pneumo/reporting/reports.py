"""Reports of runs and sweeps as the commands write them: leaderboard, ensemble and model card."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import rich

from pneumo.common.disk import FileError, disk_error
from pneumo.common.terminal import tell
from pneumo.errors import ConfigError
from pneumo.reporting.leaderboard import write_leaderboard
from pneumo.reporting.model_card import model_card
from pneumo.reporting.pooling import Ensemble, combine, to_terminal, write_ensemble
from pneumo.runs.collection import collect, is_run
from pneumo.runs.status import write_report


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

    Args:
        sweeps: The folders of sweeps or of single runs; of one run only with `card`.
        folder: Where to write; None prints the leaderboard only, and a model card goes to its run's folder.
        ensemble: Also test all runs together.
        card: Also write a model card.

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


def combine_runs(sweeps: Sequence[Path], folder: Path | None) -> Ensemble:
    """Test the runs of sweeps together; none of them may be the one that `report_ensemble` would overwrite.

    Raises:
        ConfigError: The runs do not go together, or one of them lies where the ensemble is to be written.
    """
    combined = combine(collect(sweeps))
    if folder and (folder / "ensemble").resolve() in (run.folder.resolve() for run in combined.members):
        raise ConfigError(
            f"--output {folder} would replace the predictions of the run in {folder / 'ensemble'}, a member of the "
            "ensemble: name another folder."
        )
    return combined


def report_ensemble(ensemble: Ensemble, folder: Path | None) -> None:
    """Print an ensemble's test, and write it to ensemble/ in a folder if there is one."""
    rich.print(to_terminal(ensemble))
    tell(
        "The mean of the members' probabilities, called positive above the mean of their thresholds."
        + (f" Left out: {', '.join(ensemble.left_out)}." if ensemble.left_out else ""),
        style="dim",
        wrap=True,
    )
    if folder is not None:
        write_ensemble(folder / "ensemble", ensemble)
        tell(f"{'ensemble':<12} {folder / 'ensemble' / 'ensemble.json'}")


def write_model_card(run: Path, folder: Path) -> None:
    """Write the MODEL_CARD.md of a finished run to a folder.

    Raises:
        ConfigError: No run has finished there, or a file of it is missing.
    """
    write_report(folder / "MODEL_CARD.md", model_card(run))
    tell(f"{'model card':<12} {folder / 'MODEL_CARD.md'}")
