import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.shared_arrays import RECIPE, WHOLE, blocks

from pneumo.common.array_cache import Array, Recipe, find_or_build, locked
from pneumo.data.cache_inventory import Entry, list_entries, remove, select


def interrupted(start: int) -> Iterator[Array]:
    yield WHOLE[:50]
    raise ValueError("damaged")


def test_entries_are_listed_and_are_deleted_unless_they_are_being_built(tmp_path: Path) -> None:
    find_or_build(tmp_path, RECIPE, blocks)
    with pytest.raises(ValueError, match="damaged"):
        find_or_build(tmp_path, Recipe("images", {}, (100, 3), "float32", "Decoding"), interrupted)
    built, unfinished = sorted(list_entries(tmp_path), key=lambda entry: not entry.complete)
    assert (built.kind, built.key, built.provenance, built.complete) == (
        "features",
        RECIPE.key,
        RECIPE.provenance,
        True,
    )
    assert (unfinished.kind, unfinished.complete) == ("images", False)
    with locked(built.folder, "Computing"):
        assert not remove(built)
    assert remove(built)
    assert [entry.kind for entry in list_entries(tmp_path)] == ["images"]


@pytest.mark.parametrize(
    ("given", "selected"),
    [
        ({}, ["a", "b"]),
        ({"keys": ["b", "v1"]}, ["b", "v1"]),
        ({"kind": "phantoms"}, ["v1"]),
        ({"days": 1.0}, ["a"]),
        ({"keys": ["b"], "kind": "images"}, []),
    ],
)
def test_entries_must_meet_all_conditions_and_phantoms_must_be_requested(
    given: dict[str, Any], selected: list[str], tmp_path: Path
) -> None:
    now = time.time()
    entries = [
        Entry(kind, key, tmp_path / kind / key, {}, 0, used, complete=True)
        for kind, key, used in (("images", "a", 0.0), ("features", "b", now), ("phantoms", "v1", 0.0))
    ]
    matching = select(entries, **{"keys": [], "kind": None, "days": 0.0, **given})
    assert [entry.key for entry in matching] == selected
