"""Checks on the real radiographs."""

import os
from collections import Counter
from pathlib import Path

import pytest

from pneumo.data.index import index_radiographs

pytestmark = pytest.mark.real


def test_the_official_split_is_found_whole() -> None:
    images = index_radiographs(Path(os.environ["PNEUMO_DATA_ROOT"]), ["NORMAL", "PNEUMONIA"])
    counts = Counter((image.split, image.label) for image in images)
    assert counts == {
        ("train", 0): 1341,
        ("train", 1): 3875,
        ("val", 0): 8,
        ("val", 1): 8,
        ("test", 0): 234,
        ("test", 1): 390,
    }
