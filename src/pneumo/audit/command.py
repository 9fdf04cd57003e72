"""What `pneumo audit` does."""

from collections.abc import Sequence
from pathlib import Path

import rich

from pneumo.audit.document import to_json
from pneumo.audit.findings import audit
from pneumo.audit.terminal import to_terminal
from pneumo.audit.verdicts import judge
from pneumo.outputs import check_output, write_output


def run_audit(root: Path, classes: Sequence[str], json: Path | None, html: Path | None) -> bool:
    """Audit a tree, print what was found, and write it where that is asked for.

    Returns:
        Whether a verdict is an error.

    Raises:
        DataError: There is no such tree, or nothing in it can be read.
        ConfigError: A file cannot be written.
    """
    check_output("--json", json)
    check_output("--html", html)
    findings = audit(root, classes)
    verdicts = judge(findings)
    rich.print(to_terminal(findings, verdicts))
    if json is not None:
        write_output("--json", json, to_json(findings, verdicts))
    if html is not None:
        from pneumo.audit.page import to_html  # Matplotlib takes a second

        write_output("--html", html, to_html(findings, verdicts))
    return any(verdict.severity == "error" for verdict in verdicts)
