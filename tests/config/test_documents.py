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
