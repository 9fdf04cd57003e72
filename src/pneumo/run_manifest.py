"""The manifest of a run's folder: proof that pneumo wrote its files, and hashes of reports that users may edit."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from pneumo import __version__
from pneumo.files import write_text
from pneumo.plain_data import PlainDataError, read_json

MANIFEST = ".run.json"
REPORTS = ("report.html", "MODEL_CARD.md")
EVENTS = ".pneumo"  # ends the names of event files that runs write


def write_manifest(folder: Path, reports: Mapping[str, list[str]] = MappingProxyType({})) -> None:
    """Declare a folder a run's, with the hashes of its reports by their names."""
    content = {"pneumo_version": __version__, "reports": dict(reports)}
    write_text(folder / MANIFEST, json.dumps(content, indent=2) + "\n")


def has_manifest(folder: Path) -> bool:
    """Return whether a run of this version, or a later one, has declared a folder its own."""
    return (folder / MANIFEST).is_file()


def is_unchanged(path: Path) -> bool:
    """Return whether a report in a run's folder is as pneumo wrote it."""
    return hashlib.sha256(path.read_bytes()).hexdigest() in _read(path.parent).get(path.name, [])


def write_report(path: Path, text: str) -> None:
    """Write a report atomically; in a run's folder its hash is recorded before, so that a kill cannot orphan it."""
    if has_manifest(path.parent):
        reports = _read(path.parent)
        digest = hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()
        reports[path.name] = [*reports.get(path.name, [])[-1:], digest]
        write_manifest(path.parent, reports)
    write_text(path, text)


def _read(folder: Path) -> dict[str, list[str]]:
    """Read the hashes of reports; what is damaged counts as none."""
    try:
        found = read_json(folder / MANIFEST)
    except (FileNotFoundError, PlainDataError):
        return {}
    reports = found.get("reports") if isinstance(found, dict) else None
    if not isinstance(reports, dict):
        return {}
    return {name: list(map(str, reports[name])) for name in REPORTS if isinstance(reports.get(name), list)}
