"""The audit as one HTML page with pictures, which needs no network and opens from the disk."""

from collections.abc import Sequence
from typing import Any

from pneumo.audit import charts, tables
from pneumo.audit.copies import Copies
from pneumo.audit.findings import Findings
from pneumo.audit.verdicts import Verdict
from pneumo.render import encode_jpeg, render

_MOST, _MEMBERS = 24, 4  # groups of copies shown, and films of each
_CAPTIONS = {
    "means": "The mean film of each class. What differs outside the lungs is no finding.",
    "shortcuts": "How well labels are guessed from what should not tell them, with 95 % intervals.",
    "distributions": "What varies between files. Where the lines part, files tell the classes apart.",
    "patients": "How much more alike films of one name are than strangers' of the same class, with 95 % intervals.",
}


def to_html(findings: Findings, verdicts: Sequence[Verdict]) -> str:
    """Fill in the page."""
    drawn = charts.draw(findings)
    return render(
        "audit.html",
        title=f"Audit of {findings.tree.root.name or findings.tree.root}",
        lead=f"{tables.headline(findings)}: {tables.tally(list(verdicts))}.",
        verdicts=verdicts,
        tables={
            "Images": tables.images(findings),
            "Files: median and quartiles": tables.files(findings),
            "Formats": tables.kinds(findings),
            "Shortcuts": tables.probes(findings),
        },
        about_probes=tables.ABOUT_PROBES,
        figures=[(name, text, drawn[name]) for name, text in _CAPTIONS.items() if name in drawn],
        copies=[_show(findings, group) for group in findings.copies[:_MOST]],
        hidden=len(findings.copies[_MOST:]),
        listings=list(tables.listings(findings)),
    )


def _show(findings: Findings, group: Copies) -> dict[str, Any]:
    """Return what is wrong with a group, path and JPEG of its first films, and the number of others."""
    about = ["identical files" if group.identical else "the same film"]
    about += ["in several classes"] if len(group.labels) > 1 else []
    about += ["in several splits"] if len(group.splits) > 1 else []
    members = group.members[:_MEMBERS]
    films = [
        (findings.pictures.files[member].path, encode_jpeg(findings.pictures.thumbnails[member])) for member in members
    ]
    return {"about": ", ".join(about), "films": films, "more": len(group.members) - len(members)}
