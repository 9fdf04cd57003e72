import re

import pytest
from helpers.commands import ROOT

FOLDERS = ("", "src/pneumo/", "src/", "tests/")


@pytest.mark.parametrize("name", [path.name for path in (ROOT / "docs").glob("*.md")])
def test_files_that_a_document_names_exist(name: str) -> None:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    named = {path for path in re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.(?:py|yaml))`", text) if path != "data/name.py"}
    assert name != "ARCHITECTURE.md" or named
    missing = [path for path in named if not any((ROOT / folder / path).is_file() for folder in FOLDERS)]
    assert not missing


def test_unit_tests_mirror_the_packages_of_their_modules() -> None:
    unit, strays = ROOT / "tests" / "unit", []
    for path in unit.rglob("test_*.py"):
        package = path.parent.relative_to(unit)
        folder = ROOT / "tests" / package if package.name == "helpers" else ROOT / "src" / "pneumo" / package
        names = {f"test_{module.stem}" for module in folder.glob("*.py")}
        if not any(path.stem == name or path.stem.startswith(f"{name}_") for name in names):
            strays.append(str(path.relative_to(unit)))
    assert not strays
