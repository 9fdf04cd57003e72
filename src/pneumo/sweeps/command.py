"""Which command a sweep's folder belongs to: jobs that an earlier one has left with an engine must not begin."""

import json
import os
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from pneumo.files import write_text
from pneumo.plain_data import PlainDataError, read_json

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
    """Take a sweep's folder; a stopped command that runs all jobs anew is resumed under its name."""
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
        found = read_json(sweep / ".command.json")
        command = Command(found["name"], found["overwrite"], found["complete"])
    except (FileNotFoundError, PlainDataError, KeyError, TypeError):
        return None
    # The name becomes an override of the jobs, and part of their status.
    named = isinstance(command.name, str) and command.name.isprintable() and len(command.name) <= _LONGEST
    return command if named and {type(command.overwrite), type(command.complete)} == {bool} else None
