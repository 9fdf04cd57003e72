import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from pneumo.cli import app
from pneumo.errors import PneumoError


@pytest.mark.parametrize(
    "arguments",
    [
        *([command, "X"] for command in ("report", "report-run", "model-card", "ensemble", "audit")),
        ["predict", "X", "X"],
        ["export", "X", "--output", "X"],
        ["cache", "list"],
    ],
)
def test_unreadable_paths_are_not_usage_errors(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    monkeypatch.chdir(tmp_path)
    Path("X").mkdir()
    Path("outputs/cache").mkdir(parents=True)
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code != 2
    assert done.exception is None or isinstance(done.exception, PneumoError)


COMMANDS = ["", "report", "report-run", "model-card", "ensemble", "audit", "predict", "serve", "export"]
COMMANDS += ["evaluate", "adapt", "cache", "cache list", "cache clear"]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_does_not_break_sentences(command: str, width: int) -> None:
    done = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": str(width)})
    lines = [line.strip(" │") for line in done.output.splitlines()]
    described: Any = typer.main.get_command(app)
    for name in command.split():
        described = described.commands[name]
    assert described.help in lines
    texts = [parameter.help for parameter in described.params]
    texts += [child.help for child in getattr(described, "commands", {}).values()]
    assert [text for text in texts if not any(text in line for line in lines)] == []
    assert max(map(len, done.output.splitlines())) <= width


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_one_example_per_line(command: str) -> None:
    lines = [line.strip() for line in CliRunner().invoke(app, [*command.split(), "--help"]).output.splitlines()]
    *examples, page = [line for line in lines[lines.index("Examples:") + 1 :] if line]
    assert len(examples) > 1
    assert all(line.startswith(f"pneumo {command}".strip()) for line in examples)
    assert page.startswith("Documentation: docs/")


def test_help_needs_neither_hydra_nor_pytorch() -> None:
    heavy = ("hydra", "omegaconf", "torch", "numpy")
    code = "import sys\nfrom pneumo.cli import main\nsys.argv[1:] = ['--help']\ntry: main()\n"
    code += f"finally: print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cache" in done.stdout
    assert done.stderr.strip() == "[]"
