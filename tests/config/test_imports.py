"""Indirect imports of packages, which import-linter's contracts do not cover."""

import subprocess
import sys


def test_configuration_runs_and_reporting_do_not_import_pytorch() -> None:
    code = """
import importlib, pkgutil, sys
import pneumo.config, pneumo.reporting, pneumo.runs
for package in (pneumo.config, pneumo.runs, pneumo.reporting):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
print(len([name for name in sys.modules if name.startswith("pneumo.")]), {"torch", "lightning"} & sys.modules.keys())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, heavy = done.stdout.split(maxsplit=1)
    assert int(count) > 40
    assert heavy.strip() == "set()"
