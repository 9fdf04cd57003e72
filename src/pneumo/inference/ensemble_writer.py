"""The command `pneumo ensemble`: the metrics of an ensemble, and its networks in one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pneumo.common.files import check_output, check_overwrites
from pneumo.common.terminal import print_line
from pneumo.errors import ConfigError
from pneumo.reporting.leaderboard import report_folder, reporting_to
from pneumo.reporting.pooling import combine_runs, report_ensemble
from pneumo.runs.collection import is_run


def run_ensemble(sweeps: Sequence[Path], output: Path | None, checkpoint: Path | None) -> None:
    """Evaluate the ensemble of runs, and write its networks to a file.

    Args:
        sweeps: Folders of sweeps or of single runs.
        output: Folder for the metrics; None: that of a single sweep.
        checkpoint: File for the networks, .ckpt; None: not written.

    Raises:
        ConfigError: The runs cannot be combined, or a file cannot be written.
    """
    if checkpoint is not None:
        _check_checkpoint(checkpoint)
    folder = report_folder(sweeps, output)
    with reporting_to(folder or sweeps[0]):
        combined = combine_runs(sweeps, folder)
    if checkpoint is not None:
        write_ensemble([run.folder / "checkpoints" / "best.ckpt" for run in combined.members], checkpoint)
    with reporting_to(folder or sweeps[0]):
        report_ensemble(combined, folder)
    if checkpoint is not None:
        print_line(f"Wrote {checkpoint}. Not a medical device: for research and teaching only.")


def write_ensemble(members: Sequence[Path], output: Path) -> None:
    """Write two or more checkpoints to one file, without their training states.

    Args:
        members: Checkpoints with the same classes and input format.
        output: File to write.

    Raises:
        ConfigError: A checkpoint is missing or cannot be a member, two of them do not fit together, or the output
            cannot be written.
    """
    from pneumo.models.checkpoint_reader import read_checkpoint  # imports torch
    from pneumo.models.checkpoint_writer import save_output
    from pneumo.models.ensemble_content import build_ensemble, drop_training_state

    check_overwrites([("--checkpoint", output)], members)
    if missing := next((path for path in members if not path.is_file()), None):
        raise ConfigError(
            f"--checkpoint {output} requires the checkpoints of all members, but {missing} is not a file. Restore it, "
            "leave its run out, or omit --checkpoint."
        )
    content = build_ensemble({path: drop_training_state(read_checkpoint(path)) for path in members})
    save_output("--checkpoint", content, output)


def _check_checkpoint(path: Path) -> None:
    if path.suffix != ".ckpt":
        raise ConfigError(f"--checkpoint {path} must end in .ckpt. Use a name such as --checkpoint ensemble.ckpt.")
    folder = path.resolve().parent
    if folder.name == "checkpoints" and is_run(folder.parent):
        raise ConfigError(
            f"--checkpoint {path} must not be among the checkpoints of a run. Use another folder, such as "
            f"--checkpoint {path.name}."
        )
    check_output("--checkpoint", path)
