"""The files status.json of a sweep's job and .run.json, the manifest of a run directory."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType

from pneumo.common import __version__
from pneumo.common.files import write_text
from pneumo.common.plain_data import PlainDataError, read_json
from pneumo.errors import ConfigError

_LARGEST = 1 << 20  # bytes; the reason of a failure may be long
MANIFEST = ".run.json"
REPORTS = ("report.html", "MODEL_CARD.md")
EVENTS = ".pneumo"  # ends the names of event files that runs write


@dataclass(frozen=True)
class Status:
    """How far a job has come; results.json tells more of one that finished."""

    command: str  # tells the command that ran it from others on the same folder
    status: str  # preparing (what an earlier run has left is still there), running, done, failed or stopped
    reason: str  # why it failed or stopped, on one line; empty otherwise
    error: str  # the type of what it failed with, such as TrainingError; empty otherwise
    model: str  # conf/model's name
    optimizer: str  # conf/optimizer's
    seed: int  # the run's
    experiment: str  # conf/experiment's name
    settings_hash: str  # of what decides its numbers beside the seed


def write_status(folder: Path, status: Status) -> None:
    """Write status.json."""
    write_text(folder / "status.json", json.dumps(asdict(status), indent=2) + "\n")


def read_status(folder: Path) -> Status | None:
    """Read status.json; None if there is none that can be read, which is then as good as none."""
    with suppress(ConfigError):
        return load_status(folder)
    return None


def load_status(folder: Path) -> Status | None:
    """Read status.json, None if there is none; raise a ConfigError if it is damaged."""
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


def write_manifest(folder: Path, reports: Mapping[str, list[str]] = MappingProxyType({})) -> None:
    """Declare a folder a run's, with the hashes of its reports by their names."""
    content = {"pneumo_version": __version__, "reports": dict(reports)}
    write_text(folder / MANIFEST, json.dumps(content, indent=2) + "\n")


def has_manifest(folder: Path) -> bool:
    """Return whether a run of this version, or a later one, has declared a folder its own."""
    return (folder / MANIFEST).is_file()


def is_unchanged(path: Path) -> bool:
    """Return whether a report in a run's folder is as pneumo wrote it."""
    return hashlib.sha256(path.read_bytes()).hexdigest() in _read_hashes(path.parent).get(path.name, [])


def write_report(path: Path, text: str) -> None:
    """Write a report atomically; in a run's folder its hash is recorded before, so that a kill cannot orphan it."""
    if has_manifest(path.parent):
        reports = _read_hashes(path.parent)
        digest = hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()
        reports[path.name] = [*reports.get(path.name, [])[-1:], digest]
        write_manifest(path.parent, reports)
    write_text(path, text)


def _read_hashes(folder: Path) -> dict[str, list[str]]:
    """Read the hashes of reports; what is damaged counts as none."""
    try:
        found = read_json(folder / MANIFEST)
    except (FileNotFoundError, PlainDataError):
        return {}
    reports = found.get("reports") if isinstance(found, dict) else None
    if not isinstance(reports, dict):
        return {}
    return {name: list(map(str, reports[name])) for name in REPORTS if isinstance(reports.get(name), list)}
