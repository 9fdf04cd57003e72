"""What `pneumo audit` does."""

from collections.abc import Callable, Sequence
from pathlib import Path

import rich

from pneumo.audit.document import to_json
from pneumo.audit.findings import Findings, audit
from pneumo.audit.terminal import to_terminal
from pneumo.audit.verdicts import Verdict, judge
from pneumo.errors import ConfigError
from pneumo.files import write_text


def run_audit(root: Path, classes: Sequence[str], json: Path | None, html: Path | None) -> bool:
    """Audit a tree, print what was found, and write it where that is asked for.

    Returns:
        Whether a verdict is an error.

    Raises:
        DataError: There is no such tree, or nothing in it can be read.
        ConfigError: A file cannot be written.
    """
    _check("--json", json)
    _check("--html", html)
    findings = audit(root, classes)
    verdicts = judge(findings)
    rich.print(to_terminal(findings, verdicts))
    if json is not None:
        _write(json, "--json", to_json, findings, verdicts)
    if html is not None:
        from pneumo.audit.page import to_html  # Matplotlib takes a second

        _write(html, "--html", to_html, findings, verdicts)
    return any(verdict.severity == "error" for verdict in verdicts)


def _check(option: str, path: Path | None) -> None:
    """Refuse what can be no file before minutes are spent."""
    if path is None:
        return
    if path.is_dir():
        example = path / f"audit.{option.lstrip('-')}"
        raise ConfigError(f"{option} {path} is a folder: name a file, such as {example}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, option, error) from error


def _write(
    path: Path,
    option: str,
    render: Callable[[Findings, Sequence[Verdict]], str],
    findings: Findings,
    verdicts: Sequence[Verdict],
) -> None:
    try:
        write_text(path, render(findings, verdicts))
    except OSError as error:
        raise _unwritable(path, option, error) from error


def _unwritable(path: Path, option: str, error: OSError) -> ConfigError:
    return ConfigError(f"{option} {path} cannot be written ({error.strerror}): name another file.")
