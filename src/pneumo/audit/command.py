"""What `pneumo audit` does."""

from collections.abc import Sequence
from pathlib import Path

import rich
from PIL import Image

from pneumo.audit.document import to_json
from pneumo.audit.findings import audit
from pneumo.audit.terminal import to_terminal
from pneumo.audit.verdicts import judge
from pneumo.outputs import check_output, refuse_inputs, write_output


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
    outputs = (("--json", json), ("--html", html))
    refuse_inputs(outputs, [path for _, path in outputs if path is not None and _is_image_below(path, root)])
    findings = audit(root, classes)
    verdicts = judge(findings)
    rich.print(to_terminal(findings, verdicts))
    if json is not None:
        write_output("--json", json, to_json(findings, verdicts))
    if html is not None:
        from pneumo.audit.page import to_html  # Matplotlib takes a second

        write_output("--html", html, to_html(findings, verdicts))
    return any(verdict.severity == "error" for verdict in verdicts)


def _is_image_below(path: Path, root: Path) -> bool:
    suffixes = Image.registered_extensions()
    return path.is_file() and path.suffix.lower() in suffixes and path.resolve().is_relative_to(root.resolve())
