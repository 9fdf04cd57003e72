"""Reader and writer of a run folder's status.json, manifest .run.json and IDs in experiment trackers."""

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

_MAX_BYTES = 1 << 20  # the reason of a failure may be long
MANIFEST = ".run.json"
TRACKERS = ".trackers.json"  # IDs of the run in experiment trackers, such as MLflow
REPORTS = ("report.html", "MODEL_CARD.md")
EVENTS = ".pneumo"  # suffix of the event files that runs write


@dataclass(frozen=True)
class Status:
    """Status of a job; results.json has the details of a finished one."""

    command: str  # identifies the command that ran the job
    status: str  # preparing (files of an earlier run still exist), running, done, failed or stopped
    reason: str  # of failing or stopping, on one line; empty otherwise
    error: str  # type of the error, such as TrainingError; empty otherwise
    model: str  # name in conf/model
    optimizer: str  # name in conf/optimizer
    seed: int
    experiment: str  # name in conf/experiment
    settings_hash: str  # of all settings that affect its results, except seed and fold


def write_status(folder: Path, status: Status) -> None:
    """Write status.json."""
    write_text(folder / "status.json", json.dumps(asdict(status), indent=2) + "\n")


def read_status(folder: Path) -> Status | None:
    """Read status.json; return None if it is missing or damaged."""
    with suppress(ConfigError):
        return load_status(folder)
    return None


def load_status(folder: Path) -> Status | None:
    """Read status.json; return None if it is missing, raise a ConfigError if it is damaged."""
    path = folder / "status.json"
    try:
        content = read_json(path, _MAX_BYTES)
        types = {field.name: int if field.name == "seed" else str for field in fields(Status)}
        if not isinstance(content, dict) or not content.keys() >= types.keys():
            raise PlainDataError("keys are missing")
        for name, kind in types.items():
            if type(content[name]) is not kind:
                raise PlainDataError(f"its {name} is not {'a whole number' if kind is int else 'text'}")
    except FileNotFoundError:
        return None
    except PlainDataError as error:
        raise ConfigError(
            f"{path} is not a valid job status ({error}). Delete it and repeat the sweep's command, which runs the job "
            "again unless it has finished."
        ) from error
    return Status(**{name: content[name] for name in types})


def write_manifest(folder: Path, reports: Mapping[str, list[str]] = MappingProxyType({})) -> None:
    """Write the manifest that marks a run folder, with the hashes of its reports by their names."""
    content = {"pneumo_version": __version__, "reports": dict(reports)}
    write_text(folder / MANIFEST, json.dumps(content, indent=2) + "\n")


def has_manifest(folder: Path) -> bool:
    """Return whether a folder has the manifest of a run."""
    return (folder / MANIFEST).is_file()


def is_unchanged(path: Path) -> bool:
    """Return whether a report in a run folder is unchanged since pneumo wrote it."""
    return hashlib.sha256(path.read_bytes()).hexdigest() in _read_hashes(path.parent).get(path.name, [])


def write_report(path: Path, text: str) -> None:
    """Write a report atomically, after its hash: a killed process must not leave a report without a hash."""
    if has_manifest(path.parent):
        reports = _read_hashes(path.parent)
        digest = hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()
        reports[path.name] = [*reports.get(path.name, [])[-1:], digest]
        write_manifest(path.parent, reports)
    write_text(path, text)


def _read_hashes(folder: Path) -> dict[str, list[str]]:
    """Read the hashes of reports from the manifest; damaged entries are ignored."""
    try:
        manifest = read_json(folder / MANIFEST)
    except (FileNotFoundError, PlainDataError):
        return {}
    reports = manifest.get("reports") if isinstance(manifest, dict) else None
    if not isinstance(reports, dict):
        return {}
    return {name: list(map(str, reports[name])) for name in REPORTS if isinstance(reports.get(name), list)}


def read_tracker_ids(folder: Path) -> dict[str, str]:
    """Read the IDs of a run in experiment trackers, by tracker; empty if the file is missing or damaged."""
    with suppress(FileNotFoundError, PlainDataError):
        content = read_json(folder / TRACKERS)
        if isinstance(content, dict):
            return {name: value for name, value in content.items() if isinstance(value, str)}
    return {}


def write_tracker_id(folder: Path, tracker: str, run_id: str) -> None:
    """Store the ID of a run in an experiment tracker, under which a resumed run continues."""
    write_text(folder / TRACKERS, json.dumps({**read_tracker_ids(folder), tracker: run_id}, indent=2) + "\n")
