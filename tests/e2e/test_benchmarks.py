"""The benchmarks explain themselves; what they measure is not for a test suite to judge."""

import subprocess
import sys

import pytest
from support import ROOT

SCRIPTS = sorted(path.name for path in (ROOT / "benchmarks").glob("*.py") if path.stem not in ("harness", "plain"))


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_every_benchmark_has_help(script: str) -> None:
    command = [sys.executable, f"benchmarks/{script}", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"python benchmarks/{script}" in done.stdout
    assert "--full" in done.stdout
