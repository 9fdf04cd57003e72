"""status.json: what became of one job of a sweep."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pneumo.files import write_text


@dataclass(frozen=True)
class Status:
    """How far a job has come; results.json tells more of one that finished.

    Attributes:
        command: Tells the command that ran it from others on the same folder.
        status: preparing (what an earlier run has left is still there), running, done, failed or stopped.
        reason: Why it failed or stopped, on one line; empty otherwise.
        error: The type of what it failed with, such as TrainingError; empty otherwise.
        model: conf/model's name.
        optimizer: conf/optimizer's.
        seed: The run's.
        experiment: conf/experiment's name.
        settings_hash: Of what decides its numbers beside the seed.
    """

    command: str
    status: str
    reason: str
    error: str
    model: str
    optimizer: str
    seed: int
    experiment: str
    settings_hash: str


def write_status(folder: Path, status: Status) -> None:
    """Write status.json."""
    write_text(folder / "status.json", json.dumps(asdict(status), indent=2) + "\n")


def read_status(folder: Path) -> Status | None:
    """Read status.json; None if there is none that can be read, which is then as good as none."""
    try:
        return Status(**json.loads((folder / "status.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
