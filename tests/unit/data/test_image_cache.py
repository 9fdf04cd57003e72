import os
import shutil
from pathlib import Path

import pytest
from helpers.data_modules import open_data

from pneumo.common.input_format import InputFormat
from pneumo.data import image_cache
from pneumo.data.image_cache import RadiographDataset, content_hash, decode_all
from pneumo.data.index import index_radiographs
from pneumo.errors import DataError

CLASSES = ["NORMAL", "PNEUMONIA"]


def hashed(root: Path, cache: Path) -> str:
    return content_hash(root, index_radiographs(root, CLASSES), cache)


def test_the_hash_depends_on_the_content_and_not_on_the_folder(phantoms: Path, tmp_path: Path) -> None:
    root = shutil.copytree(phantoms, tmp_path / "copy")
    first = hashed(phantoms, tmp_path)
    assert hashed(root, tmp_path) == hashed(root, tmp_path / "other") == first
    image = next((root / "train" / "NORMAL").iterdir())
    image.write_bytes(image.read_bytes()[:-1] + b"x")  # same size as before
    assert hashed(root, tmp_path) != first
    image.rename(image.with_name("IM-9999-0001.jpeg"))
    assert hashed(root, tmp_path) != first


def test_unchanged_files_are_read_only_once(phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = hashed(phantoms, tmp_path)
    monkeypatch.setattr(image_cache, "_file_hash", lambda *_: pytest.fail("read again"))
    assert hashed(phantoms, tmp_path) == first


def test_a_missing_file_is_reported(phantoms: Path, tmp_path: Path) -> None:
    root = shutil.copytree(phantoms, tmp_path / "copy")
    index = index_radiographs(root, CLASSES)
    os.unlink(root / index[5].path)
    with pytest.raises(DataError, match=Path(index[5].path).name):
        content_hash(root, index, tmp_path)


def replace_image(path: Path) -> None:
    """Replace an image file with another image."""
    shutil.copyfile(next(other for other in path.parent.iterdir() if other != path), path)


def test_a_file_that_changes_after_indexing_is_not_hashed(phantoms: Path, tmp_path: Path) -> None:
    root = shutil.copytree(phantoms, tmp_path / "copy")
    index = index_radiographs(root, CLASSES)
    replace_image(root / index[5].path)
    with pytest.raises(DataError, match=f"{Path(index[5].path).name} has changed"):
        content_hash(root, index, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("manifests/*"))
    assert len(hashed(root, tmp_path / "cache")) == 32


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_file_that_changes_between_hashing_and_decoding_is_not_cached(
    workers: int, phantoms: Path, tmp_path: Path
) -> None:
    root, cache = shutil.copytree(phantoms, tmp_path / "copy"), tmp_path / "cache"
    index = index_radiographs(root, CLASSES)
    content = content_hash(root, index, cache)
    replace_image(root / index[5].path)
    with pytest.raises(DataError, match=f"{Path(index[5].path).name} has changed"):
        decode_all(RadiographDataset(root, index, InputFormat(24)), workers, content, cache)
    assert not list(cache.glob("images/*/array.npy"))
    again = index_radiographs(root, CLASSES)
    content = content_hash(root, again, cache)
    assert len(decode_all(RadiographDataset(root, again, InputFormat(24)), workers, content, cache)) == len(index)


def test_a_file_that_changes_before_its_features_are_computed_is_reported(phantoms: Path, tmp_path: Path) -> None:
    root = shutil.copytree(phantoms, tmp_path / "copy")
    data = open_data(root, cache_dir=str(tmp_path / "cache"))
    assert len(data.content_hash) == 32
    replace_image(root / data.radiographs[5].path)
    with pytest.raises(DataError, match="has changed"):
        list(data.image_blocks(range(len(data.radiographs)), 16))
