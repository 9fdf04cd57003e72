"""Which command a sweep's folder belongs to: jobs that an earlier one has left with an engine must not begin."""

import json
import os
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from pneumo.files import write_text

_LONGEST = 100  # characters of a name


@dataclass(frozen=True)
class Command:
    """One command on a sweep's folder, the last one.

    Attributes:
        name: Tells it from others.
        overwrite: Whether it runs all jobs anew.
        complete: Whether all have finished.
    """

    name: str
    overwrite: bool
    complete: bool


def begin_command(sweep: Path, overwrite: bool) -> Command:
    """Take a sweep's folder; a command that runs all jobs anew and was stopped is gone on with under its name."""
    last = read_command(sweep)
    if overwrite and last and last.overwrite and not last.complete:
        return last
    command = Command(f"{datetime.now():%Y%m%d-%H%M%S-%f}-{os.getpid()}", overwrite, complete=False)
    write_command(sweep, command)
    return command


def write_command(sweep: Path, command: Command) -> None:
    """Write which command the folder belongs to."""
    write_text(sweep / ".command.json", json.dumps(asdict(command)) + "\n")


def read_command(sweep: Path) -> Command | None:
    """Read which command the folder belongs to; None if no command has been there, or its file is damaged."""
    try:
        found = Command(**json.loads((sweep / ".command.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError, RecursionError):
        return None
    # The name becomes an override of the jobs, and part of their status.
    named = isinstance(found.name, str) and found.name.isprintable() and len(found.name) <= _LONGEST
    return found if named and {type(found.overwrite), type(found.complete)} == {bool} else None
