import os
import subprocess
import sys
from pathlib import Path

import pytest
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
def test_what_cannot_be_read_is_no_mistake_of_usage(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    monkeypatch.chdir(tmp_path)
    Path("X").mkdir()
    Path("outputs/cache").mkdir(parents=True)
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code != 2
    assert done.exception is None or isinstance(done.exception, PneumoError)


@pytest.mark.parametrize("command", ["report", "report-run", "model-card", "ensemble", "audit", "predict", "export"])
def test_help_has_examples_one_a_line(command: str) -> None:
    lines = [line.strip() for line in CliRunner().invoke(app, [command, "--help"]).output.splitlines()]
    examples = [line for line in lines[lines.index("Examples:") + 1 :] if line]
    assert len(examples) > 1
    assert all(line.startswith(f"pneumo {command} ") for line in examples)


def test_help_needs_neither_hydra_nor_pytorch() -> None:
    heavy = ("hydra", "omegaconf", "torch", "numpy")
    code = "import sys\nfrom pneumo.cli import main\nsys.argv[1:] = ['--help']\ntry: main()\n"
    code += f"finally: print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cache" in done.stdout
    assert done.stderr.strip() == "[]"
