import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.shared_arrays import RECIPE, WHOLE, blocks

from pneumo.common.array_cache import Array, Recipe, find_or_build, locked
from pneumo.data.cache_inventory import Entry, entries, remove, select


def stopped(start: int) -> Iterator[Array]:
    yield WHOLE[:50]
    raise ValueError("damaged")


def test_entries_are_listed_and_deleted_but_not_while_they_are_built(tmp_path: Path) -> None:
    find_or_build(tmp_path, RECIPE, blocks)
    with pytest.raises(ValueError, match="damaged"):
        find_or_build(tmp_path, Recipe("images", {}, (100, 3), "float32", "Decoding"), stopped)
    whole, unfinished = sorted(entries(tmp_path), key=lambda entry: not entry.whole)
    assert (whole.kind, whole.key, whole.about, whole.whole) == ("features", RECIPE.key, RECIPE.about, True)
    assert (unfinished.kind, unfinished.whole) == ("images", False)
    with locked(whole.folder, "Computing"):
        assert not remove(whole)
    assert remove(whole)
    assert [entry.kind for entry in entries(tmp_path)] == ["images"]


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
def test_all_conditions_count_and_phantoms_are_selected_only_if_asked_for(
    given: dict[str, Any], selected: list[str], tmp_path: Path
) -> None:
    now = time.time()
    found = [
        Entry(kind, key, tmp_path / kind / key, {}, 0, used, whole=True)
        for kind, key, used in (("images", "a", 0.0), ("features", "b", now), ("phantoms", "v1", 0.0))
    ]
    chosen = select(found, **{"keys": [], "kind": None, "days": 0.0, **given})
    assert [entry.key for entry in chosen] == selected
