"""status.json: what became of one job of a sweep."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from pneumo.errors import ConfigError
from pneumo.files import write_text
from pneumo.plain_data import PlainDataError, read_json

_LARGEST = 1 << 20  # bytes; the reason of a failure may be long


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
    with suppress(ConfigError):
        return load_status(folder)
    return None


def load_status(folder: Path) -> Status | None:
    """Read status.json; None if there is none.

    Raises:
        ConfigError: It cannot be read or is damaged.
    """
    path = folder / "status.json"
    try:
        found = read_json(path, _LARGEST)
        names = {field.name: int if field.name == "seed" else str for field in fields(Status)}
        if not isinstance(found, dict) or not found.keys() >= names.keys():
            raise PlainDataError("it lacks some of its keys")
        for name, kind in names.items():
            if type(found[name]) is not kind:
                raise PlainDataError(f"its {name} is no {'whole number' if kind is int else 'text'}")
    except FileNotFoundError:
        return None
    except PlainDataError as error:
        raise ConfigError(
            f"{path} cannot be read as the status of a job ({error}): delete it, and the sweep's command runs the job "
            "again unless it has finished."
        ) from error
    return Status(**{name: found[name] for name in names})
