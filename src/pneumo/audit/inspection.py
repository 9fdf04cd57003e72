"""The command `pneumo audit` and its JSON output."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import rich
from PIL import Image

from pneumo.audit.dataset import read_dataset
from pneumo.audit.findings import QUANTITIES, Findings, audit, quantiles
from pneumo.audit.tables import to_terminal
from pneumo.audit.verdicts import assess
from pneumo.common import __version__
from pneumo.common.files import check_output, check_overwrites, escape_path, write_output
from pneumo.data.index import file_path
from pneumo.data.selection import DataSelection, written_images
from pneumo.reporting.assessment import Verdict


def run_audit(selection: DataSelection, classes: Sequence[str], json: Path | None, html: Path | None) -> bool:
    """Audit a data set, print the findings, and write them to the given files.

    Returns:
        Whether any verdict is an error.

    Raises:
        DataError: The data are invalid, or none of the files can be read.
        ConfigError: An option does not fit the data, or a file cannot be written.
    """
    check_output("--json", json)
    check_output("--html", html)
    outputs = (("--json", json), ("--html", html))
    written = [path for _, path in outputs if path is not None]
    below = [path for path in written if any(_is_image_below(path, root) for root in selection.data)]
    check_overwrites(outputs, [*selection.files, *below])
    tree = read_dataset(selection, classes)
    check_overwrites(outputs, written_images(outputs, (file_path(tree.root, file.path) for file in tree.files)))
    findings = audit(tree)
    verdicts = assess(findings)
    rich.print(to_terminal(findings, verdicts))
    if json is not None:
        write_output("--json", json, to_json(findings, verdicts))
    if html is not None:
        from pneumo.audit.page import to_html  # importing Matplotlib takes a second

        write_output("--html", html, to_html(findings, verdicts))
    return any(verdict.severity == "error" for verdict in verdicts)


def _is_image_below(path: Path, root: Path) -> bool:
    suffixes = Image.registered_extensions()
    return path.is_file() and path.suffix.lower() in suffixes and path.resolve().is_relative_to(root.resolve())


def to_json(findings: Findings, verdicts: Sequence[Verdict]) -> str:
    """Return the findings as JSON, as documented in docs/AUDIT.md; the same data always produce the same text."""
    tree, images, patients, duplicates = findings.tree, findings.images, findings.patients, findings.duplicates
    kinds = {"within": patients.within, "subtypes": patients.subtypes, "across": patients.across}
    similarities = {
        f"patients_{kind}_{name}": value
        for kind, similarity in kinds.items()
        for name, value in asdict(similarity).items()
    }
    identical_groups, identical_images = findings.identical
    probes = {
        f"shortcut_{probe.name}_{name}": value
        for probe in findings.probes
        for name, value in (("auroc", probe.auroc), ("auroc_ci_low", probe.low), ("auroc_ci_high", probe.high))
    }
    content = {
        "schema": 1,
        "pneumo_version": __version__,
        "root": escape_path(str(tree.root)),
        "table": None if tree.table is None else escape_path(str(tree.table)),
        "splits": tree.splits,
        "classes": tree.classes,
        "images": len(tree.files),
        "counts": _records(findings.counts(), ("split", "class", "subtype")),
        "kinds": _records(findings.formats(), ("class", "format", "mode")),
        "distributions": [_quantiles(findings, name, quantity) for quantity in QUANTITIES for name in tree.classes],
        "unreadable": [{"path": path, "reason": reason} for path, reason in images.unreadable],
        "notes": [{"path": path, "notes": notes} for path, notes in images.noted().items()],
        "junk": tree.junk,
        "omitted": [{"path": path, "reason": reason} for path, reason in tree.omitted],
        "mismatched": [{"path": path, "format": form} for path, form in images.mismatched()],
        "identical_groups": identical_groups,
        "identical_images": identical_images,
        "copies_groups": len(duplicates),
        "copies_images": sum(len(group.members) for group in duplicates),
        "copies_groups_across_splits": sum(len(group.splits) > 1 for group in duplicates),
        "copies_groups_across_classes": sum(len(group.labels) > 1 for group in duplicates),
        "copies": [{"identical": group.identical, "paths": findings.paths(group)} for group in duplicates],
        "patients": patients.per_split,
        "patients_shared": patients.shared,
        "patients_shared_subtypes": patients.shared_subtypes,
        "patients_conclusion": patients.conclusion,
        "patients_share": patients.ratio,
        "patients_share_ci_high": patients.ratio_high,
        "patients_p_value": patients.p_value,
        **similarities,
        **probes,
        "verdicts": [verdict._asdict() for verdict in verdicts],
    }
    return json.dumps(_rounded(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _quantiles(findings: Findings, name: str, quantity: str) -> dict[str, Any]:
    names = ("minimum", "lower_quartile", "median", "upper_quartile", "maximum")
    values: Sequence[float | None] = quantiles(findings.values(quantity)[name])
    return {"class": name, "quantity": quantity, **dict(zip(names, values or [None] * 5, strict=True))}


def _records(counts: dict[tuple[str, str, str], int], names: tuple[str, str, str]) -> list[dict[str, Any]]:
    return [{**dict(zip(names, key, strict=True)), "images": count} for key, count in counts.items()]


def _rounded(value: Any) -> Any:  # noqa: ANN401 (any JSON value)
    """Round floats to 5 decimals, since the last digits depend on the machine."""
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, (list, tuple)) else value
