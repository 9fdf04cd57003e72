import os
import shutil
from pathlib import Path

import pytest

from pneumo.data import manifest
from pneumo.data.index import index_radiographs
from pneumo.data.manifest import content_hash
from pneumo.errors import DataError

CLASSES = ["NORMAL", "PNEUMONIA"]


def hashed(root: Path, cache: Path) -> str:
    return content_hash(root, index_radiographs(root, CLASSES), cache)


def test_the_hash_follows_the_content_wherever_it_lies(phantoms: Path, tmp_path: Path) -> None:
    root = shutil.copytree(phantoms, tmp_path / "copy")
    first = hashed(phantoms, tmp_path)
    assert hashed(root, tmp_path) == hashed(root, tmp_path / "other") == first
    image = next((root / "train" / "NORMAL").iterdir())
    image.write_bytes(image.read_bytes()[:-1] + b"x")  # as large as before
    assert hashed(root, tmp_path) != first
    image.rename(image.with_name("IM-9999-0001.jpeg"))
    assert hashed(root, tmp_path) != first


def test_files_are_read_once(phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = hashed(phantoms, tmp_path)
    monkeypatch.setattr(manifest, "_file_hash", lambda path: pytest.fail("read again"))
    assert hashed(phantoms, tmp_path) == first


def test_a_file_that_goes_missing_is_named(phantoms: Path, tmp_path: Path) -> None:
    root = shutil.copytree(phantoms, tmp_path / "copy")
    index = index_radiographs(root, CLASSES)
    os.unlink(root / index[5].path)
    with pytest.raises(DataError, match=Path(index[5].path).name):
        content_hash(root, index, tmp_path)
