"""Rows of a table that name the same file."""

from pathlib import Path

import pytest

from pneumo.audit.dataset import read_dataset
from pneumo.data.selection import DataSelection
from pneumo.errors import DataError


@pytest.mark.parametrize("folder", [".", ".."])
def test_a_file_in_two_spellings_is_an_error(folder: str, tmp_path: Path) -> None:
    images = (tmp_path / "data" / folder).resolve()
    images.mkdir(exist_ok=True, parents=True)
    (tmp_path / "data").mkdir(exist_ok=True)
    (images / "a.png").write_bytes(b"x")
    table = tmp_path / "data" / "labels.csv"
    table.write_text(f"file,label\n{images / 'a.png'},A\n{folder}/a.png,B\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"lists 1 file more than once, in different spellings: a.png\. Keep"):
        read_dataset(DataSelection([table]))
