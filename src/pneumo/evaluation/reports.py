"""What `pneumo report` gives: the leaderboard, an ensemble, a model card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import rich

from pneumo.console import tell
from pneumo.errors import ConfigError
from pneumo.evaluation.card import model_card
from pneumo.evaluation.ensemble import Ensemble, combine, write_ensemble
from pneumo.evaluation.ensemble import to_terminal as ensemble_table
from pneumo.evaluation.leaderboard import write_leaderboard
from pneumo.evaluation.runs import collect
from pneumo.run_manifest import write_report


def write_reports(sweeps: Sequence[Path], folder: Path | None, ensemble: bool, card: bool) -> None:
    """Write and print what was asked for.

    Args:
        sweeps: The folders of sweeps or of single runs; of one run only with `card`.
        folder: Where to write; None prints the leaderboard only, and a model card goes to its run's folder.
        ensemble: Also test all runs together.
        card: Also write a model card.

    Raises:
        ConfigError: There is no run in one of the sweeps, or the runs do not go together.
    """
    combined = combine(collect(sweeps)) if ensemble else None
    if combined and folder is not None:
        _refuse_members(folder / "ensemble", combined)
    write_leaderboard(sweeps, folder)
    if combined:
        rich.print(ensemble_table(combined))
        tell(
            "The mean of the members' probabilities, called positive above the mean of their thresholds."
            + (f" Left out: {', '.join(combined.left_out)}." if combined.left_out else ""),
            style="dim",
            wrap=True,
        )
        if folder is not None:
            write_ensemble(folder / "ensemble", combined)
            _name("ensemble", folder / "ensemble" / "ensemble.json")
    if card:
        place = (folder or sweeps[0]) / "MODEL_CARD.md"
        write_report(place, model_card(sweeps[0]))
        _name("model card", place)


def _refuse_members(folder: Path, ensemble: Ensemble) -> None:
    if folder.resolve() in (run.folder.resolve() for run in ensemble.members):
        raise ConfigError(
            f"--output {folder.parent} would replace the predictions of the run in {folder}, a member of the ensemble: "
            "name another folder."
        )


def _name(name: str, place: Path) -> None:
    tell(f"{name:<12} {place}")
